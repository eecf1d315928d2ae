"""`moonshine pick`: which rows a budget allows, in what order, at what price."""

import json
from pathlib import Path

import pytest

from moonshine import cli
from tests.support.latency_files import write_latency
from tests.support.measured_project import write_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_project(tmp_path))
    return tmp_path


def picked(capsys: pytest.CaptureFixture[str], *options: str) -> list[list[str]]:
    assert cli.main(["pick", *options]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.usefixtures("project")
def test_rows_within_the_budget_are_listed_best_first_with_their_price(capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: 7.00 - 2.033 points, 60,000 / 3,000 parameters."""
    rows = picked(capsys, "--max-params", "3.1k")
    assert [row[0] for row in rows] == ["distil/at/student", "train/student"]
    assert rows[0][1:6] == ["7.00", "+4.97", "3.00k", "20.0x", "30.0k"]
    assert [row[0] for row in picked(capsys)] == ["train/teacher", "distil/at/student", "train/student"]
    assert [row[0] for row in picked(capsys, "--max-macs", "0.6M", "--max-size", "239k")] == [row[0] for row in rows]


def test_latency_counts_on_the_machine_that_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_latency(project, "fast-cpu")
    rows = picked(capsys, "--max-latency", "4")
    assert [row[0] for row in rows] == ["distil/at/student", "train/student"]
    assert rows[0][-2:] == ["4.00", "2.50x"]
    write_latency(project, "old-cpu")
    assert picked(capsys, "--max-latency", "160", "--machine", "old-cpu")[0][-2:] == ["160", "1.25x"]
    assert cli.main(["pick", "--max-latency", "160"]) == 2
    assert "Name one with --machine: fast-cpu, old-cpu" in capsys.readouterr().err


REFUSED = {
    "nothing fits": (
        ["--max-params", "2k"],
        2,
        "no row of toy is within the budget; the nearest is train/student: params 3.00k",
    ),
    "not measured": (["--max-latency", "3"], 3, "--max-latency: no row has been measured in this; use `moonshine meas"),
    "older metrics": (["--max-activations", "3M"], 3, "--max-activations: no row has been measured in this"),
    "unknown machine": (["--machine", "x"], 2, 'unknown machine "x"; none was measured yet'),
    "no number": (["--max-params", "3.1m"], 2, "must be a positive number, such as 800k or 3.1M, found '3.1m'"),
    "nothing": (["--max-params", "0"], 2, "must be a positive number"),
}


@pytest.mark.parametrize(("options", "code", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("project")
def test_what_cannot_be_picked_is_one_line(
    options: list[str], code: int, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["pick", *options]) == code
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert "\n" not in error


def test_rows_that_have_not_run_are_left_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = project / "results/toy/metrics/train"
    content = json.loads((metrics / "student.json").read_text())
    (metrics / "student.json").unlink()
    assert content["row"] == "train/student"
    assert [row[0] for row in picked(capsys)] == ["train/teacher", "distil/at/student"]
