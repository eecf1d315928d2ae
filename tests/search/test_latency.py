"""A search within a latency, and the measurement of blocks that it goes by, from the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.separate_project import write_params
from moonshine.search.latencies import BlockLatencyFile
from tests.faults.forked import command
from tests.support.block_latencies import FAST, REST, block_latencies, milliseconds, write_block_latencies
from tests.support.small_search import search_params

RESULT = Path("results/toy/search/fast.json")
TABLE = "results/toy/block-latency/toy-cpu.json"
AGAIN = "; run `moonshine measure --blocks --machine toy-cpu` on that machine"


def with_fast(**changes: Any) -> dict[str, Any]:
    """The tiny experiment with a search within a latency, its control, and one with another budget."""
    small = search_params()["search"]["small"]
    fast = {key: value for key, value in {**FAST, **changes}.items() if value is not None}
    return {**search_params(), "search": {"fast": fast, "lucky": {**fast, "criterion": "random"}, "small": small}}


@pytest.fixture
def measured(prepared: Path) -> Path:
    """The data, params with a search within a latency, and a file of latencies."""
    write_params(prepared, with_fast())
    write_block_latencies(prepared)
    return prepared


def found(project: Path, name: str = "fast") -> dict[str, Any]:
    result = command(project, "search", name)
    assert result.code == 0, result.output
    return json.loads((project / f"results/toy/search/{name}.json").read_text())


def test_candidates_are_within_the_latency_that_the_table_predicts(measured: Path) -> None:
    content = found(measured)
    assert content["columns"] == ["candidate", "potential", "parameters", "macs", "activations", "latency", "convs"]
    rows = [dict(zip(content["columns"], row)) for row in content["candidates"]]
    assert all(3.6 < row["latency"] < 4.4 for row in rows)
    for each in content["best"]:
        total = REST + sum(milliseconds(block, conv) for block, conv in enumerate(each["convs"]))
        assert each["latency"] == round(total, 6)
    assert content["potential"] == max(row["potential"] for row in rows)
    lucky = found(measured, "lucky")
    assert lucky["candidates"] == [[row[0], *row[2:]] for row in content["candidates"]]
    assert command(measured, "check").code == 0


def test_a_search_with_another_budget_has_nothing_of_it(measured: Path) -> None:
    content = found(measured, "small")
    assert content["columns"] == ["candidate", "potential", "parameters", "macs", "activations", "convs"]
    assert "latencies" not in content
    (measured / TABLE).unlink()
    assert command(measured, "search", "small").steps == 0, "it is finished, with or without the table"


def test_what_was_found_is_adopted_and_held_against_the_table(measured: Path) -> None:
    convs = found(measured)["convs"]
    assert command(measured, "search", "fast", "--adopt", "mixed").code == 0
    assert yaml.safe_load((measured / "params.yaml").read_text())["networks"]["mixed"]["convs"] == convs
    content = block_latencies(measured)
    content["networks"][0]["rest_ms"] = 0.26
    write_block_latencies(measured, content)
    outdated = command(measured, "search", "fast", "--adopt", "mixed")
    line = f"error: {RESULT}: outdated (latencies: changed); run `moonshine search fast`\n"
    assert (outdated.code, outdated.output) == (3, line)
    status = json.loads(command(measured, "status", "--json").output)
    reasons = {each["name"]: each["reason"] for each in status["searches"]}
    assert reasons["fast"] == "outdated (latencies: changed)"
    again = command(measured, "search", "fast")
    assert again.steps == 6
    assert "an older run is not resumed because it differs in latencies: changed" in again.output
    assert command(measured, "search", "fast").steps == 0


def changed(**of_network: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> dict[str, Any]:
        return {**content, "networks": [{**content["networks"][0], **of_network}]}

    return change


ARCHITECTURE = "resnet18 (channels [4, 4, 8, 8], classes 10, in_channels 1, stem 3x3)"
NOT_A_TABLE = f"{TABLE}: not a file of this version's `moonshine measure --blocks` ("
TABLES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "not JSON": (lambda content: "{", f"{NOT_A_TABLE}Invalid JSON: "),
    "another format": (lambda content: {**content, "format": 2}, f"{NOT_A_TABLE}format: Input should be 1){AGAIN}"),
    "the file of `moonshine measure`": (
        lambda content: {**content, "networks": {"teacher": {}}},
        f"{NOT_A_TABLE}networks: Input should be a valid array){AGAIN}",
    ),
    "no time at all": (changed(blocks_ms=[[0.0]]), f"{NOT_A_TABLE}networks.0.blocks_ms.0.0: Input should be greater"),
    "another machine": (
        lambda content: {**content, "machine": "other"},
        f"{TABLE}: is the file of the machine other; rename it to other.json",
    ),
    "another architecture": (
        changed(architecture={"arch": "wrn-10-2", "classes": 10, "in_channels": 1}),
        f"{TABLE}: has wrn-10-2 (classes 10, in_channels 1), but not {ARCHITECTURE} of search.fast{AGAIN}",
    ),
    "another size": (
        changed(input=[1, 32, 32]),
        f"{TABLE}: measured with images of 1x32x32, but the experiment has 1x12x12{AGAIN}",
    ),
    "another pool": (
        changed(pool=["S", "G(2)", "G(4)", "B(4)", "BG(2,2)", "BG(2,M)"]),
        f"{TABLE}: has no latency of G(N), B(2) in the pool of search.fast{AGAIN}",
    ),
    "too few blocks": (changed(blocks_ms=[[0.1] * 6] * 7), f"{TABLE}: has not 8 rows of 6 latencies{AGAIN}"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_of_something_else_is_refused_before_any_work(case: str, measured: Path) -> None:
    change, line = TABLES[case]
    write_block_latencies(measured, change(block_latencies(measured)))
    for arguments in (("search", "fast"), ("check",)):
        result = command(measured, *arguments)
        assert result.code == 3, result.output
        assert f"error: {line}" in result.output
        assert len(result.output.splitlines()) == 1
    assert not (measured / "results/toy/search").exists()
    assert not (measured / "runs").exists()


def test_a_missing_table_is_one_line_with_the_command_that_makes_it(measured: Path) -> None:
    (measured / TABLE).unlink()
    for arguments in (("search", "fast"), ("check",)):
        result = command(measured, *arguments)
        assert (result.code, result.output) == (3, f"error: {TABLE}: missing{AGAIN}\n")
    assert command(measured, "check", "--keys").code == 0, "it is measured after the params are written"


PARAMS: dict[str, tuple[dict[str, Any], str]] = {
    "out of reach": (
        {"latency": 0.1},
        "search.fast.latency: 0.1 ms within 10 %, but with this pool networks have from 0.61 ms to 6.01 ms",
    ),
    "no machine": ({"machine": None}, "search.fast: machine: missing, on which latency is predicted"),
    "a machine for another budget": ({"latency": None, "macs": 10}, "search.fast: machine: only valid with latency"),
    "two budgets": (
        {"macs": 10},
        "search.fast: needs exactly one of parameters, macs, activations, latency, found macs, latency",
    ),
    "no time": ({"latency": 0.0}, "search.fast.latency: must be above 0, found 0.0"),
    "a path": ({"machine": "../x"}, "search.fast.machine: "),
}


@pytest.mark.parametrize("case", PARAMS)
def test_a_budget_that_makes_no_sense_is_refused(case: str, measured: Path) -> None:
    changes, line = PARAMS[case]
    write_params(measured, with_fast(**changes))
    result = command(measured, "search", "fast")
    assert result.code == 2, result.output
    assert line in result.output
    assert "Traceback" not in result.output
    assert not (measured / "results/toy/search").exists()


QUICKLY = ("--rounds", "2", "--runs", "2", "--warm-up", "1")


@pytest.mark.slow
def test_blocks_are_measured_and_a_search_goes_by_them(prepared: Path) -> None:
    """Of two searches for one architecture in one table; another search's pool is a part of it."""
    params = with_fast(pool=["S", "G(N)"], candidates=2, machine="here", tolerance=0.9)
    params["search"]["small"]["pool"] = ["G(N)", "B(2)"]
    write_params(prepared, params)
    result = command(prepared, "measure", "--blocks", "--machine", "here", *QUICKLY)
    assert result.code == 0, result.output
    path = prepared / "results/toy/block-latency/here.json"
    file = BlockLatencyFile.model_validate_json(path.read_bytes())
    (network,) = file.networks
    assert network.pool == ["S", "G(N)", "B(2)"]
    assert network.input == [1, 12, 12]
    assert [len(row) for row in network.blocks_ms] == [3] * 8
    assert network.blocks_ms[0] == network.blocks_ms[1], "blocks of one kind are measured once"
    assert network.check.networks == 12
    assert re.search(r"^\| B\(2\) +\|( +0\.\d+ \|){7}$", result.output, re.M), "seven kinds of blocks"
    assert "with an error of" in result.output
    middle = network.rest_ms + sum(sum(row[:2]) / 2 for row in network.blocks_ms)
    params["search"]["fast"]["latency"] = round(middle, 3)
    write_params(prepared, params)
    assert 0.1 * middle < found(prepared)["latency"] < 1.9 * middle
    before = path.read_bytes()
    refused = command(prepared, "measure", "--blocks", "fats", "--machine", "here")
    assert (refused.code, refused.output) == (2, 'error: unknown search "fats" (did you mean "fast"?)\n')
    assert path.read_bytes() == before


REFUSED = {
    "rows": (("train/teacher", "--blocks"), "--blocks: measures no networks; leave out rows and --model, or --blocks"),
    "another backend": (("--blocks", "--backend", "eager"), "--blocks: leave out --backend, --int8 and --threads"),
    "int8": (("--blocks", "--int8"), "--blocks: leave out --backend, --int8 and --threads"),
    "a path as a name": (("--blocks", "--machine", "../x"), '--machine: "../x" must be lower-case letters'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_one_line(case: str, measured: Path) -> None:
    arguments, line = REFUSED[case]
    result = command(measured, "measure", *arguments)
    assert result.code == 2
    assert result.output.startswith(f"error: {line}")
    assert len(result.output.splitlines()) == 1


def test_without_searches_there_is_nothing_to_measure(prepared: Path) -> None:
    write_params(prepared, {**search_params(), "search": {}})
    result = command(prepared, "measure", "--blocks")
    assert (result.code, result.output) == (2, "error: search: has no entries, whose blocks --blocks could measure\n")
