"""Pages with what was counted image by image: McNemar's test and the columns of fidelity."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy.stats import binomtest

from benchmarks.separate_project import write_params
from moonshine.report.comparison import compare
from tests.report.conftest import RunInProcess
from tests.report.test_page import csv_line, table_line
from tests.support.measured_project import TOP1, measured_params, row_metrics, write_metrics, write_project

ERRORS = {"train/teacher": 2.0, "train/student": 9.0, "distil/at/student": 7.0}
"""Of 600 images, so that 12, 54 and 42 are wrong."""
ONLY_STUDENT, ONLY_DISTILLED = 21, 9


def one_seed(**table: Any) -> dict[str, Any]:
    params = {**measured_params(), "seeds": [0]}
    params["tables"][0].update(table)
    return params


def write_comparison(project: Path, only_student: int = ONLY_STUDENT, only_distilled: int = ONLY_DISTILLED) -> None:
    """Of the seeds of the metrics, whose top-5 errors are equal."""
    folder = project / "results/toy/comparison"
    folder.mkdir(exist_ok=True)
    none = {"top5_only_row": 0, "top5_only_other": 0}
    of_pairs = {
        ("train/teacher", "train/student"): (0, 42),
        ("train/teacher", "distil/at/student"): (4, 34),
        ("train/student", "distil/at/student"): (only_student, only_distilled),
    }
    pairs = [
        {"row": row, "other": other, "seed": 0, "images": 600, "top1_only_row": a, "top1_only_other": b, **none}
        for (row, other), (a, b) in of_pairs.items()
    ]
    pd.DataFrame(pairs).to_csv(folder / "pairs.csv", index=False)
    measured = [(100.0, 0.0, 1.5), (90.0, 0.5, 4.0), (93.0, 0.25, 2.0)]
    fidelity = [{"row": row, "seed": 0, **dict(zip(("agreement", "kl", "ece"), m))} for row, m in zip(TOP1, measured)]
    pd.DataFrame(fidelity).to_csv(folder / "fidelity.csv", index=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_project(tmp_path)
    write_params(tmp_path, one_seed())
    for row, error in ERRORS.items():
        write_metrics(tmp_path, row, row_metrics(row, {"0": error}))
    return tmp_path


def test_rows_of_one_seed_are_compared_on_the_images_that_only_one_gets_wrong(
    project: Path, run_in_process: RunInProcess
) -> None:
    """2 points of 600 images are noise by a binomial test, but not if only 30 of them distinguish the networks."""
    run_in_process("report", cwd=project)
    assert table_line(project, "Student")[4] == "−2.00 ≈"
    assert "The test is a binomial test that ignores" in (project / "results/toy/README.md").read_text()
    write_comparison(project)
    run_in_process("report", cwd=project)
    page = (project / "results/toy/README.md").read_text()
    assert table_line(project, "Student")[4] == "−2.00"
    assert float(csv_line(project, "distil/at/student")["top1_minus_scratch_p"]) == pytest.approx(
        binomtest(ONLY_DISTILLED, ONLY_STUDENT + ONLY_DISTILLED).pvalue, rel=1e-5
    )
    assert "McNemar's exact test on the images that only one of two networks gets wrong; against a published" in page
    write_comparison(project, only_student=52, only_distilled=40)
    run_in_process("report", cwd=project)
    assert table_line(project, "Student")[4] == "−2.00 ≈"


@pytest.mark.parametrize(("ours", "theirs"), [(0, 0), (3, 3), (0, 5), (0, 6), (40, 20), (7, 1)])
def test_mcnemars_test_is_the_exact_binomial_one(ours: int, theirs: int) -> None:
    expected = binomtest(ours, ours + theirs).pvalue if ours + theirs else 1.0
    found = compare({"0": 10.0 + (ours - theirs) / 6}, {"0": 10.0}, 600, (ours, theirs))
    assert found.p_value == pytest.approx(expected, rel=1e-12)
    assert found.within_noise == (expected >= 0.05)


def test_several_seeds_are_compared_by_the_t_test_whatever_was_counted() -> None:
    ours, theirs = {"0": 7.0, "1": 8.0}, {"0": 9.0, "1": 10.5}
    assert compare(ours, theirs, 600, (1, 100)).p_value == compare(ours, theirs, 600).p_value
    assert compare(ours, theirs, 600).p_value > 0.05


def test_tables_may_show_how_closely_the_teacher_is_followed(project: Path, run_in_process: RunInProcess) -> None:
    write_params(project, one_seed(columns=["top1", "agreement", "kl", "ece"], published=[]))
    write_comparison(project)
    run_in_process("report", cwd=project)
    assert table_line(project, "Teacher")[3:] == ["100.00", "0.000", "**1.50**"]
    assert table_line(project, "Student")[3:] == ["93.00", "0.250", "2.00"]
    line = csv_line(project, "distil/at/student")
    assert [float(line[key]) for key in ("agreement", "kl", "ece")] == [93, 0.25, 2]
    page = (project / "results/toy/README.md").read_text()
    assert "Agreement is the share of validation images that get the teacher's class; KL is" in page
    assert "expected calibration error" in page


def test_results_that_were_not_compared_have_empty_cells(project: Path, run_in_process: RunInProcess) -> None:
    write_params(project, one_seed(columns=["top1", "agreement", "kl", "ece"], published=[]))
    run_in_process("report", cwd=project)
    assert table_line(project, "Student")[3:] == ["", "", ""]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace(",21,9,", ",21,8,"), "not of the networks that train/student and distil/at/student"),
        (lambda text: text.replace(",0,600,", ",1,600,"), "not of the networks that train/teacher and train/student"),
        (lambda text: text.replace(",21,9,", ",many,9,"), "damaged"),
        (lambda text: text.replace("top1_only_row", "first"), "damaged"),
        (lambda text: "", "damaged"),
    ],
    ids=["of other networks", "of another seed", "a word", "a column", "empty"],
)
def test_a_comparison_of_others_is_refused(
    change: Any, reason: str, project: Path, run_in_process: RunInProcess
) -> None:
    write_comparison(project)
    path = project / "results/toy/comparison/pairs.csv"
    path.write_text(change(path.read_text()))
    result = run_in_process("report", cwd=project, fails=True)
    assert result.returncode == 3
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"error: results/toy/comparison/pairs.csv: {reason}")
    assert line.endswith("; run `moonshine compare`")
    assert not (project / "results/toy/README.md").exists()
