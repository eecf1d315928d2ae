"""Rows with recipes of their own under both engines: the same bytes, and a change makes exactly its rows stale."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.separate_project import start_and_run
from tests.support.own_recipes import own_recipes
from tests.support.plans import COMPARE, MAPS, REPORT, params_change, planned_by_dvc, planned_by_snakemake
from tests.support.project import copy_finished, copy_project, files_below, once_per_run, run, run_moonshine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def by_snakemake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        start_and_run("snakemake", "--cores", "2", cwd=copy_project(folder / "project", own_recipes()))

    return once_per_run(tmp_path_factory, "own_recipes_by_snakemake", make) / "project"


def test_both_engines_make_the_same_and_have_nothing_to_do_afterwards(by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", own_recipes())
    run("dvc", "repro", cwd=project)
    ours = files_below(by_snakemake / "models", ".safetensors")
    assert len(ours) == 4
    assert files_below(project / "models", ".safetensors") == ours
    results = files_below(by_snakemake / "results", ".md", ".json", ".csv", ".svg")
    assert files_below(project / "results", ".md", ".json", ".csv", ".svg") == results
    for finished in (project, copy_finished(by_snakemake, tmp_path / "by_snakemake")):
        run_moonshine("sync", cwd=finished)
        assert planned_by_dvc(finished) == planned_by_snakemake(finished) == set()
        run_moonshine("verify", cwd=finished)
        run_moonshine("lineage", "distil/kd/small", cwd=finished)


STUDENTS = {
    "at-student": {"distil@toy-at-student-0", "evaluate_distil@toy-at-student"},
    "at-slow": {"distil@toy-at-slow-0", "evaluate_distil@toy-at-slow"},
    "kd-small": {"distil_more@toy-kd-small-0", "evaluate_distil_more@toy-kd-small"},
}
TEACHER = {"train@toy-teacher-0", "evaluate_train@toy-teacher"}
CHANGES: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "a network's": (params_change(networks__slow__recipe__lr=0.03), STUDENTS["at-slow"] | {REPORT}),
    "the method's": (
        params_change(methods__at__recipe__images=400),
        STUDENTS["at-student"] | STUDENTS["at-slow"] | {COMPARE, MAPS, REPORT},
    ),
    "another method's": (params_change(methods__kd__recipe={"lr": 0.03}), STUDENTS["kd-small"] | {REPORT}),
    "the teacher's": (
        params_change(networks__teacher__recipe__epochs=2),
        TEACHER.union(*STUDENTS.values()) | {COMPARE, MAPS, REPORT},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_recipe_makes_stale_what_is_trained_by_it(change: str, by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    CHANGES[change][0](project)
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == CHANGES[change][1]


def test_the_page_names_the_rows_that_are_trained_in_another_way(by_snakemake: Path) -> None:
    page = (by_snakemake / "results/toy/README.md").read_text()
    assert "Teacher (1 epoch, constant learning rate 0.02)" in page
    assert "Student (300 training images)" in page
