"""`moonshine search` from the command line: what it finds, that it resumes, what it refuses, and what is adopted."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.separate_project import write_params
from tests.faults.forked import command, start
from tests.support.small_search import POOL, SEARCH, search_params

SMALL = ("search", "small")
RESULT = Path("results/toy/search/small.json")


def found(project: Path, name: str = "small") -> dict[str, Any]:
    result = command(project, "search", name)
    assert result.code == 0, result.output
    return json.loads((project / f"results/toy/search/{name}.json").read_text())


def test_the_candidate_with_the_largest_potential_is_found(prepared: Path) -> None:
    content = found(prepared)
    assert content["columns"] == ["candidate", "potential", "parameters", "macs", "activations", "convs"]
    rows = [dict(zip(content["columns"], row)) for row in content["candidates"]]
    assert [row["candidate"] for row in rows] == [*range(6)]
    assert all(3600 < row["parameters"] < 4400 for row in rows)
    best = max(rows, key=lambda row: row["potential"])
    assert {**{key: content[key] for key in best}, "convs": " ".join(content["convs"])} == best
    assert content["best"][0] == {**best, "convs": content["convs"]}
    assert [each["potential"] for each in content["best"]] == sorted((row["potential"] for row in rows), reverse=True)
    assert set(content["convs"]) <= set(POOL)
    assert content["draws"] >= 6
    assert content["search"] == SEARCH
    assert content["pool"] == POOL
    assert max(len(line) for line in (prepared / RESULT).read_text().splitlines()) < 200


def test_controls_take_the_first_and_the_largest_candidate_of_the_same_sample(prepared: Path) -> None:
    small, chance, largest = (found(prepared, name) for name in ("small", "chance", "largest"))
    without_potential = [[row[0], *row[2:]] for row in small["candidates"]]
    assert chance["candidates"] == largest["candidates"] == without_potential
    assert chance["candidate"] == 0
    assert largest["parameters"] == max(row[1] for row in largest["candidates"])
    assert "potential" not in chance
    assert not (prepared / "runs/toy/search/chance").exists(), "there is nothing to resume"


def test_of_equals_the_first_drawn_is_found(prepared: Path) -> None:
    """Both convolutions cost the same here: with 4 channels, G(4) is G(N)."""
    thin = {"channels": [4, 4, 4, 4], "pool": ["G(4)", "G(N)"], "parameters": 1314, "criterion": "parameters"}
    write_params(prepared, search_params(**thin))
    content = found(prepared, "largest")
    assert len({row[1] for row in content["candidates"]}) == 1
    assert content["candidate"] == 0


def test_a_killed_search_resumes_to_the_same_bytes(prepared: Path, tmp_path: Path) -> None:
    """Whatever the interval of checkpoints: here one after each candidate, and there none before the end."""
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(prepared, undisturbed)
    params = search_params()
    del params["machine"]["checkpoint_steps"]
    write_params(undisturbed, params)
    found(undisturbed)
    for phase in ("training", "saving"):
        running = start(prepared, *SMALL, pause=phase)
        running.kill(signal.SIGKILL)
        assert running.finish().code == -signal.SIGKILL
        assert not (prepared / RESULT).exists()
    running = start(prepared, *SMALL, pause="saving")
    running.kill(signal.SIGTERM)
    running.go_on()
    result = running.finish()
    assert result.code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM: a checkpoint is saved, the same command resumes from it" in result.output
    result = command(prepared, *SMALL)
    assert result.code == 0
    assert "resuming from candidate 1 of 6" in result.output
    assert result.steps == 5
    assert (prepared / RESULT).read_bytes() == (undisturbed / RESULT).read_bytes()


def test_a_finished_search_is_published_again_without_ranking(prepared: Path) -> None:
    found(prepared)
    before = (prepared / RESULT).read_bytes()
    (prepared / RESULT).unlink()
    result = command(prepared, *SMALL)
    assert result.steps == 0
    assert (prepared / RESULT).read_bytes() == before


def test_another_search_begins_anew_and_says_why(prepared: Path) -> None:
    found(prepared)
    write_params(prepared, search_params(seed=1))
    result = command(prepared, *SMALL)
    assert result.steps == 6
    assert "an older run is not resumed because it differs in search.seed: 0 -> 1" in result.output


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "a budget out of reach": (
        {"parameters": 400_000},
        "search.chance.parameters: 400,000 within 10 %, but with this pool networks have from 998 to 5,950",
    ),
    "a convolution that cannot be built": (
        {"pool": ["S", "G(8)"]},
        "search.chance.pool: layer layer1.0.conv1: G(8): 4 channels cannot be split into 8 groups; leave it out",
    ),
    "no budget": (
        {"parameters": None},
        "search.small: needs exactly one of parameters, macs, activations, latency, found none",
    ),
    "two budgets": (
        {"macs": 10},
        "search.small: needs exactly one of parameters, macs, activations, latency, found parameters, macs",
    ),
    "other blocks": (
        {"arch": "resnet50"},
        "search.small: arch: must be resnet18, resnet34 or a wide ResNet, found resnet50",
    ),
    "an unknown convolution": (
        {"pool": ["S", "g(2)"]},
        'search.small: pool.1: unknown convolution "g(2)" (did you mean "G(2)"?)',
    ),
    "a convolution twice": ({"pool": ["S", "B(2)", "S"]}, "search.small: pool: duplicate entry S"),
    "a stem of another family": (
        {"arch": "wrn-10-1"},
        "search.small: channels: only valid for torchvision's ResNets, not for wrn-10-1",
    ),
    "no tolerance": ({"tolerance": 0.0}, "search.small.tolerance: must be above 0, found 0.0"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_searched_is_refused_before_any_work(case: str, prepared: Path) -> None:
    changes, line = REFUSALS[case]
    write_params(prepared, search_params(**changes))
    result = command(prepared, "search", "chance")
    assert result.code == 2, result.output
    assert line in result.output
    assert "Traceback" not in result.output
    assert not (prepared / "results").exists()
    assert not (prepared / "runs").exists()


def test_check_knows_what_a_search_would_refuse(prepared: Path) -> None:
    write_params(prepared, search_params(parameters=400_000))
    result = command(prepared, "check")
    assert result.code == 2
    assert result.output.startswith("error: search.chance.parameters: 400,000 within 10 %, but with this pool")


def test_an_unknown_search_is_refused(prepared: Path) -> None:
    result = command(prepared, "search", "smal")
    assert (result.code, result.output) == (2, 'error: unknown search "smal" (did you mean "small"?)\n')


COMMENTED = """\
networks:  # of this experiment
  teacher: {arch: resnet18, stem: 3x3, channels: [4, 4, 8, 8]}  # wide enough
  student: {arch: resnet18, stem: 3x3, channels: [4, 4, 8, 8], conv: G(N)}
  # the last line of the section
"""


def with_comments(project: Path) -> str:
    """Params with comments in the section of the networks; returns their text."""
    others = {key: value for key, value in search_params().items() if key != "networks"}
    text = "# an experiment\n" + COMMENTED + yaml.safe_dump(others, sort_keys=False)
    (project / "params.yaml").write_text(text)
    return text


def test_what_was_found_is_adopted_and_all_else_stays_to_the_letter(prepared: Path) -> None:
    before = with_comments(prepared)
    convs = found(prepared)["convs"]
    result = command(prepared, *SMALL, "--adopt", "mixed")
    assert result.code == 0, result.output
    assert f"networks.mixed has what search small found: {' '.join(convs)}\n" in result.output
    text = (prepared / "params.yaml").read_text()
    added = [line for line in text.splitlines() if line not in before.splitlines()]
    assert [line for line in text.splitlines() if line not in added] == before.splitlines()
    (line,) = added
    assert yaml.safe_load(line) == {
        "mixed": {"arch": "resnet18", "stem": "3x3", "channels": [4, 4, 8, 8], "convs": convs, "found_by": "small"}
    }
    found(prepared, "largest")
    assert command(prepared, "search", "largest", "--adopt", "mixed").code == 0
    other = yaml.safe_load((prepared / "params.yaml").read_text())["networks"]["mixed"]
    assert other["found_by"] == "largest"
    assert other["convs"] != convs


def test_any_candidate_is_adopted_by_its_number(prepared: Path) -> None:
    with_comments(prepared)
    convs = [row[-1].split() for row in found(prepared)["candidates"]]
    for candidate in (4, 1):
        result = command(prepared, *SMALL, "--adopt", "mixed", "--candidate", str(candidate))
        assert result.code == 0, result.output
        assert (
            f"networks.mixed has candidate {candidate} of search small: {' '.join(convs[candidate])}\n" in result.output
        )
        network = yaml.safe_load((prepared / "params.yaml").read_text())["networks"]["mixed"]
        assert (network["convs"], network["found_by"], network["candidate"]) == (convs[candidate], "small", candidate)
        assert command(prepared, "check").code == 0
    assert command(prepared, *SMALL, "--adopt", "mixed").code == 0
    network = yaml.safe_load((prepared / "params.yaml").read_text())["networks"]["mixed"]
    assert (network["convs"], network["candidate"]) == (found(prepared)["convs"], None)


def test_a_candidate_that_is_not_there_is_refused(prepared: Path) -> None:
    found(prepared)
    before = (prepared / "params.yaml").read_bytes()
    for option in ("6", "-1"):
        result = command(prepared, *SMALL, "--adopt", "mixed", "--candidate", option)
        assert (result.code, result.output) == (
            2,
            f"error: search.small has 6 candidates, counted from 0; there is no candidate {option}\n",
        )
    alone = command(prepared, *SMALL, "--candidate", "1")
    assert (alone.code, alone.output) == (2, "error: --candidate: for --adopt NETWORK, which is missing\n")
    assert (prepared / "params.yaml").read_bytes() == before


def test_check_holds_a_network_against_its_candidate(prepared: Path) -> None:
    convs = [row[-1].split() for row in found(prepared)["candidates"]]
    params = search_params()
    thin = {key: SEARCH[key] for key in ("arch", "stem", "channels")}
    params["networks"]["mixed"] = {**thin, "convs": convs[2], "found_by": "small", "candidate": 3}
    write_params(prepared, params)
    result = command(prepared, "check")
    assert (result.code, result.output) == (
        2,
        f"error: networks.mixed.convs: not those that {RESULT} has; run `moonshine search small --adopt mixed "
        "--candidate 3`, or leave out found_by\n",
    )
    params["networks"]["mixed"]["candidate"] = 2
    write_params(prepared, params)
    assert command(prepared, "check").code == 0


def test_check_holds_a_network_against_what_was_found(prepared: Path) -> None:
    convs = found(prepared)["convs"]
    params = search_params()
    thin = {key: SEARCH[key] for key in ("arch", "stem", "channels")}
    params["networks"]["mixed"] = {**thin, "convs": [*convs[1:], "S"], "found_by": "small"}
    write_params(prepared, params)
    result = command(prepared, "check")
    assert (result.code, result.output) == (
        2,
        f"error: networks.mixed.convs: not those that {RESULT} has; run `moonshine search small --adopt mixed`, or "
        "leave out found_by\n",
    )
    (prepared / RESULT).unlink()
    assert command(prepared, "check").code == 0, "nothing was found yet"


def test_nothing_else_is_adopted(prepared: Path) -> None:
    missing = command(prepared, *SMALL, "--adopt", "mixed")
    assert (missing.code, missing.output) == (3, f"error: {RESULT}: missing; run `moonshine search small`\n")
    found(prepared)
    before = (prepared / "params.yaml").read_bytes()
    taken = command(prepared, *SMALL, "--adopt", "student")
    line = "error: networks.student: is another network, without convs; choose another name\n"
    assert (taken.code, taken.output) == (2, line)
    unnameable = command(prepared, *SMALL, "--adopt", "Mixed Net")
    assert unnameable.code == 2
    assert "must be of lower-case letters" in unnameable.output
    assert (prepared / "params.yaml").read_bytes() == before
    write_params(prepared, search_params(seed=1))
    outdated = command(prepared, *SMALL, "--adopt", "mixed")
    line = f"error: {RESULT}: outdated (search.seed: 0 -> 1); run `moonshine search small`\n"
    assert (outdated.code, outdated.output) == (3, line)


FOUND_BY: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown search": (
        {"found_by": "smal"},
        'networks.mixed.found_by: unknown search "smal" (did you mean "small"?)',
    ),
    "another architecture": (
        {"channels": [4, 4, 8, 16]},
        "networks.mixed.found_by: small has channels [4, 4, 8, 8], but networks.mixed has [4, 4, 8, 16]",
    ),
    "no list": ({"convs": None}, "networks.mixed: found_by: is about convs, which are missing"),
    "a candidate of no search": (
        {"found_by": None, "candidate": 1},
        "networks.mixed: candidate: of which search? found_by is missing",
    ),
    "no such candidate": ({"candidate": 6}, "networks.mixed.candidate: 6, but small has 6, from 0"),
}


@pytest.mark.parametrize("case", FOUND_BY)
def test_a_network_is_found_by_a_search_for_its_architecture(case: str, prepared: Path) -> None:
    changes, line = FOUND_BY[case]
    params = search_params()
    thin = {key: SEARCH[key] for key in ("arch", "stem", "channels")}
    params["networks"]["mixed"] = {**thin, "convs": ["S"] * 8, "found_by": "small", **changes}
    write_params(prepared, params)
    result = command(prepared, "check", "--keys")
    assert result.code == 2
    assert line in result.output


def test_status_shows_how_far_a_search_is(prepared: Path) -> None:
    def shown() -> dict[str, Any]:
        output = command(prepared, "status", "--json").output
        return {each["name"]: each for each in json.loads(output)["searches"]}

    assert shown()["small"]["state"] == "waiting"
    running = start(prepared, *SMALL, pause="saving")
    assert shown()["small"]["state"] == "running"
    assert "small     running          1/6   " in command(prepared, "status").output
    running.kill(signal.SIGKILL)
    running.finish()
    assert shown()["small"]["state"] == "stopped"
    found(prepared)
    assert shown()["small"]["state"] == "done"
    write_params(prepared, search_params(seed=1))
    assert shown()["small"]["reason"] == "outdated (search.seed: 0 -> 1)"
