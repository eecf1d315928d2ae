"""The columns of networks in int8: what they show, which falls are marked, and what is refused."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import write_params
from moonshine.errors import DataError
from moonshine.params import read_params
from moonshine.report.rows import read_rows
from tests.support.measured_project import TOP1, VALIDATION, measured_params, write_metrics, write_project
from tests.support.project import run_moonshine

SETTINGS = {"images": 100, "per_tensor": True, "reduce_range": False}
QUANTISED = ("train/student", "distil/at/student")
MARK = "In int8, the error is more than 1 point above that in float32."


def int8_metrics(row: str, rise: float, **changes: Any) -> dict[str, Any]:
    """Errors that are `rise` points above those in float32."""
    network = {"top5": 1.0, "loss": 0.5, "n": 600, "int8_bytes": 5000, "model_sha256": 64 * "0"}
    seeds = {seed: {**network, "top1": error + rise} for seed, error in TOP1[row].items()}
    top1 = {"mean": sum(seed["top1"] for seed in seeds.values()) / 3}
    errors = {"top1": top1, "top5": {"mean": 1.0}, "loss": {"mean": 0.5}}
    per_tensor = {**errors, "top1": {"mean": 77.0}}
    return {
        "row": row,
        "dataset": VALIDATION,
        "n": 600,
        "settings": SETTINGS,
        **errors,
        "seeds": seeds,
        "per_tensor": per_tensor,
        **changes,
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two quantised rows of three: one loses more than a point, the other less."""
    write_project(tmp_path)
    params = measured_params()
    params["quantise"] = dict.fromkeys(QUANTISED, SETTINGS)
    params["tables"][0]["columns"] += ["int8_top1", "int8_size"]
    write_params(tmp_path, params)
    write_metrics(tmp_path, "int8/train/student", int8_metrics("train/student", 1.01))
    write_metrics(tmp_path, "int8/distil/at/student", int8_metrics("distil/at/student", 0.99))
    return tmp_path


def test_a_fall_of_more_than_a_point_is_marked(project: Path) -> None:
    run_moonshine("report", cwd=project)
    page = (project / "results/toy/README.md").read_text()
    student = next(line for line in page.splitlines() if line.startswith("| From scratch"))
    assert "10.01 ± 1.00 †" in student
    assert "5.00kB" in student
    assert "7.99 ± 1.05" in page
    assert "7.99 ± 1.05 †" not in page
    assert page.count(MARK) == 1
    assert "From scratch in int8 with one scale per weight tensor: Top-1 77.00 %." in page
    assert MARK in (project / "results/toy/report.html").read_text()
    with (project / "results/toy/tables/all.csv").open() as file:
        lines = {line["row"]: line for line in csv.DictReader(file)}
    assert (lines["train/student"]["int8_top1"], lines["train/student"]["int8_top1_std"]) == ("10.01", "1")
    assert lines["train/student"]["int8_size"] == "5000"
    assert lines["train/teacher"]["int8_top1"] == "", "it is not quantised"


def test_a_page_without_such_a_fall_does_not_mention_it(project: Path) -> None:
    write_metrics(project, "int8/train/student", int8_metrics("train/student", 0.5))
    run_moonshine("report", cwd=project)
    assert "†" not in (project / "results/toy/README.md").read_text()


def test_a_row_that_is_yet_to_be_quantised_is_not_run(project: Path) -> None:
    (project / "results/toy/metrics/int8/train/student.json").unlink()
    result = run_moonshine("report", cwd=project, check=False)
    path = "results/toy/metrics/int8/train/student.json"
    assert (result.returncode, result.stderr) == (
        3,
        f"error: {path}: missing; run `moonshine quantise train/student`\n",
    )
    run_moonshine("report", "--partial", cwd=project)
    page = (project / "results/toy/README.md").read_text()
    student = next(line for line in page.splitlines() if line.startswith("| From scratch"))
    assert student.count("not run") == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"top1": {"mean": 1.0}}, "top1 is not the mean of its seeds"),
        ({"seeds": {}, "int8_bytes": 1}, r"has seeds \[\], params.yaml \[0, 1, 2\]"),
        ({"top5": {}}, "damaged "),
        ({"n": float("nan")}, "a value is not finite"),
    ],
)
def test_damaged_metrics_are_refused(
    changes: dict[str, Any], reason: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.dumps({**int8_metrics("train/student", 0.5), **changes})
    write_metrics(project, "int8/train/student", content)
    monkeypatch.chdir(project)
    with pytest.raises(DataError, match=rf"^results/toy/metrics/int8/train/student.json: {reason}"):
        read_rows(read_params(Path("params.yaml")))
