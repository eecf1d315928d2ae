"""`moonshine summary` shows what changed in the results since a commit, as Markdown for a pull request."""

import json
from pathlib import Path

import pytest

from benchmarks.separate_project import write_params
from tests.support.project import ANOTHER_OWNER, copy_finished, copy_project, run, run_moonshine, toy_params

TABLE = """row,seeds,title,parameters,top1,top1_std
train/teacher,3,Teacher,60000,{teacher},0.2
distil/at/student,{seeds},Student | AT,{parameters},{student},{std}
"""
IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results in which the student had not run; a score that DVC knows."""
    project = copy_project(tmp_path_factory.mktemp("summary") / "project", toy_params())
    write_results(project, TABLE.format(teacher=2.0, seeds=0, parameters="", student="", std=""), 2.0)
    run("git", "add", ".", cwd=project)
    run("git", *IDENTITY, "commit", "--quiet", "--message", "results", cwd=project)
    return project


def write_results(project: Path, table: str, score: float) -> None:
    for path, text in {
        "tables/all.csv": table,
        "tables/other.csv": "row,seeds,title,top1,top1_std\ntrain/teacher,3,Teacher,5,0.1\n",
        "scores/train/teacher.json": json.dumps({"top1": score}),
    }.items():
        (project / "results/toy" / path).parent.mkdir(parents=True, exist_ok=True)
        (project / "results/toy" / path).write_text(text)


def test_rows_that_changed_are_shown_with_what_they_were(project: Path, tmp_path: Path) -> None:
    folder = copy_finished(project, tmp_path / "project")
    table = TABLE.format(teacher=1.5, seeds=3, parameters=3000, student=7.25, std=0.5)
    write_results(folder, table, 1.5)
    printed = run_moonshine("summary", cwd=folder).stdout
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in printed.splitlines()]
    assert ["Teacher", "3", "60,000", "2.00 ± 0.20 → **1.50 ± 0.20**"] in lines
    assert [r"Student \| AT", "none → **3**", "none → **3,000**", "none → **7.25 ± 0.50**"] in lines
    assert "### toy: all" in printed
    assert "other" not in printed, "a table that did not change"
    assert "top1" in printed.split("dvc metrics diff")[1], "the scores' difference"


def test_nothing_changed_is_said(project: Path) -> None:
    assert "No table has changed." in run_moonshine("summary", cwd=project).stdout


def test_another_experiment_in_place_makes_no_difference(project: Path, tmp_path: Path) -> None:
    """DVC takes metrics of experiments that are not in place for lost."""
    folder = copy_finished(project, tmp_path / "project")
    (folder / "results/toy/tables/all.csv").write_text(
        TABLE.format(teacher=1, seeds=0, parameters="", student="", std="")
    )
    write_params(folder, {**toy_params(), "experiment": "other"})
    printed = run_moonshine("summary", cwd=folder).stdout
    assert "No score has changed." in printed


def test_an_unknown_revision_is_refused(project: Path) -> None:
    result = run_moonshine("summary", "--against", "nowhere", cwd=project, check=False)
    assert (result.returncode, result.stderr) == (2, "error: --against nowhere: unknown git revision\n")


def test_git_s_reason_is_given_where_it_refuses_and_where_it_has_no_repository(project: Path, tmp_path: Path) -> None:
    result = run_moonshine("summary", cwd=project, check=False, **ANOTHER_OWNER)
    assert result.returncode == 5
    assert result.stderr.startswith("error: git refuses: fatal: detected dubious ownership in repository at ")
    assert result.stderr.count("\n") == 1
    (tmp_path / "dvc.yaml").touch()
    result = run_moonshine("summary", cwd=tmp_path, check=False)
    assert (result.returncode, "this is not a git repository" in result.stderr) == (5, True)
