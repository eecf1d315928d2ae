"""A search under both engines: the same bytes, and each knows what it depends on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmarks.separate_project import write_params
from tests.support.block_latencies import FAST, write_block_latencies
from tests.support.plans import append, comment, params_change, planned_by_dvc, planned_by_snakemake
from tests.support.project import copy_finished, copy_project, once_per_run, run, run_moonshine
from tests.support.small_search import search_params

pytestmark = pytest.mark.slow

REPORT = "report@toy"
SEARCHES = {"search@toy-small", "search@toy-chance", "search@toy-largest", "search@toy-fast", REPORT}
TABLE = Path("results/toy/block-latency/toy-cpu.json")
RESULTS = [Path(f"results/toy/search/{name}.json") for name in ("chance", "fast", "largest", "small")]


def copy_with_searches(folder: Path) -> Path:
    """This project with searches within parameters, and one within a latency."""
    params = search_params()
    project = copy_project(folder, {**params, "search": {**params["search"], "fast": FAST}})
    write_block_latencies(project)
    return project


@pytest.fixture(scope="module")
def by_snakemake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        run("snakemake", "--cores", "2", cwd=copy_with_searches(folder / "project"))

    return once_per_run(tmp_path_factory, "searched_by_snakemake", make) / "project"


def test_both_engines_find_the_same_bytes(by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_with_searches(tmp_path / "project")
    run("dvc", "repro", "prepare", "search", cwd=project)
    for path in RESULTS:
        assert (project / path).read_bytes() == (by_snakemake / path).read_bytes()
    finished = copy_finished(by_snakemake, tmp_path / "by_snakemake")
    assert planned_by_dvc(finished) == planned_by_snakemake(finished) == set()
    run_moonshine("verify", cwd=finished)


CHANGES: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "one search": (params_change(search__small__seed=1), {"search@toy-small", REPORT}),
    "code of searching": (comment("moonshine/search/sampling.py"), SEARCHES),
    "the stage's own code": (comment("moonshine/stages/search.py"), SEARCHES),
    "code that changes no result": (comment("moonshine/runs/search_folder.py"), set()),
    "latencies of blocks": (lambda project: append(project / TABLE, b" "), SEARCHES),
    "latencies of blocks on another machine": (
        lambda project: (project / TABLE).with_name("other.json").touch(exist_ok=False),
        SEARCHES,
    ),
    "other files among them": (lambda project: (project / TABLE).with_name("notes.txt").touch(exist_ok=False), set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_stale_what_depends_on_it(change: str, by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    CHANGES[change][0](project)
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == CHANGES[change][1]


def test_what_was_found_by_hand_for_other_params_is_planned(by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    before = yaml.safe_load((project / "params.yaml").read_text())
    params_change(search__small__seed=1)(project)
    run_moonshine("search", "small", cwd=project)
    write_params(project, before)
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == {"search@toy-small", REPORT}


def test_measuring_again_costs_only_what_goes_by_it(by_snakemake: Path, tmp_path: Path) -> None:
    """The searches with other budgets are planned as well, but have finished, and come out to the byte."""
    project = copy_finished(by_snakemake, tmp_path / "project")
    before = {path: (project / path).read_bytes() for path in RESULTS}
    (project / TABLE).with_name("other.json").write_text("{}")
    run_moonshine("sync", cwd=project)
    run("dvc", "repro", "search", cwd=project)
    assert {path: (project / path).read_bytes() for path in RESULTS} == before
    assert len(list((project / "runs/toy/search/small").iterdir())) == 1
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()


def test_an_adopted_network_is_trained_and_traced_to_its_search(by_snakemake: Path, tmp_path: Path) -> None:
    """Its training depends on the list alone: another search with another result makes nothing stale."""
    project = copy_finished(by_snakemake, tmp_path / "project")
    run_moonshine("search", "small", "--adopt", "mixed", cwd=project)
    params_change(train=["teacher", "mixed"])(project)
    run("dvc", "repro", cwd=project)
    run_moonshine("sync", cwd=project)
    chain = run_moonshine("lineage", "train/mixed", cwd=project).stdout
    assert "results/toy/search/small.json: candidate " in chain
    assert "ok  has the convolutions of networks.mixed\n" in chain
    assert "links hold" in chain
    params_change(search__small__seed=1)(project)
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == {"search@toy-small", REPORT}
    broken = run_moonshine("lineage", "train/mixed", cwd=project, check=False)
    assert broken.returncode == 3
    assert "search.small in params.yaml is modified" in broken.stdout
