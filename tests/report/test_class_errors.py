"""The errors by class on the results page: what it says, what it leaves out, and what it refuses."""

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert
from sklearn.metrics import balanced_accuracy_score, recall_score

from benchmarks.separate_project import write_params
from moonshine.drawing.style import LIGHT
from moonshine.errors import DataError
from moonshine.params import Params, read_params
from moonshine.report.class_errors import ClassErrors, read_class_errors
from moonshine.report.figures.catalogue import CONFUSION, FIGURES, drawable
from moonshine.report.figures.encoding import FILES, NARROW, WIDE, Size
from moonshine.report.figures.measured import Measured
from moonshine.report.figures.rendering import config, register_font
from moonshine.report.page import markdown_page
from moonshine.report.rows import ResultRow, read_rows
from moonshine.report.tables import table_csv
from moonshine.report.web_page import web_page
from moonshine.stages.report import report
from tests.support.measured_project import (
    TOP1,
    measured_params,
    row_metrics,
    write_confusions,
    write_metrics,
    write_project,
)

SEEDS = ("0", "1", "2")
Drawn = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
"""Row -> seed -> labels and predictions."""


def draw(classes: int, images: int = 600) -> Drawn:
    """Random predictions of all rows, right nine times of ten."""
    random = np.random.default_rng(0)
    labels = np.arange(images) % classes
    made: Drawn = {}
    for row in TOP1:
        for seed in SEEDS:
            wrong = random.random(images) < 0.1
            made.setdefault(row, {})[seed] = labels, np.where(wrong, random.integers(0, classes, images), labels)
    return made


def write(project: Path, drawn: Drawn, name: Callable[[int], str] = str) -> None:
    counts = {
        row: {
            seed: dict(sorted(Counter((name(label), name(prediction)) for label, prediction in zip(*pair)).items()))
            for seed, pair in by_seed.items()
        }
        for row, by_seed in drawn.items()
    }
    write_confusions(project, counts)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With pages without Vega's JavaScript, which takes seconds to bundle."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet: "")
    return write_project(tmp_path)


def read(classes: int = 10) -> tuple[Params, dict[str, ResultRow], Measured]:
    """The project as the report reads it, of a data set with so many classes."""
    params = read_params(Path("params.yaml"))
    params = params.model_copy(update={"dataset": params.dataset.model_copy(update={"classes": classes})})
    rows = read_rows(params)
    measured = Measured(list(rows.values()), {}, rows["train/teacher"], "0", [], read_class_errors(params, rows))
    return params, rows, measured


def errors() -> ClassErrors:
    found = read()[2].class_errors
    assert found is not None
    return found


def pages(classes: int = 10) -> tuple[str, str]:
    params, rows, measured = read(classes)
    return markdown_page(params, rows, measured, None), web_page(params, rows, measured, None)


def section(page: str, title: str) -> list[list[str]]:
    """The cells of the table below a heading of a Markdown page."""
    lines = page.partition(f"## {title}\n")[2].partition("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_errors_are_scikit_learns_worst_first_with_the_balanced_error_last(project: Path) -> None:
    drawn = draw(10)
    write(project, drawn)
    header, *lines, last = section(pages()[0], "Errors by class")
    assert header == ["Class", "Images", "Teacher", "From scratch", "Student"]
    expected = {
        row: np.mean([100 * (1 - recall_score(*pair, average=None)) for pair in by_seed.values()], axis=0)
        for row, by_seed in drawn.items()
    }
    for name, images, *found in lines:
        assert images == "60"
        assert found == [f"{expected[row][int(name)]:.2f}" for row in TOP1]
    of_student = [float(line[-1]) for line in lines]
    assert len(lines) == 10
    assert of_student == sorted(of_student, reverse=True)
    balanced = [
        np.mean([100 * (1 - balanced_accuracy_score(*pair)) for pair in by_seed.values()]) for by_seed in drawn.values()
    ]
    assert last == ["**Balanced error**", "600", *(f"{error:.2f}" for error in balanced)]


def test_both_pages_say_the_same(project: Path) -> None:
    write(project, draw(10))
    markdown, html = pages()
    for cells in section(markdown, "Errors by class")[1:-1]:
        assert f'<th scope="row">{cells[0]}</th>' in html
        assert all(f">{error}</td>" in html for error in cells[1:])
    assert 'data-chart="confusion"' in html
    assert "figures/confusion.svg" in markdown


def test_without_counts_both_pages_are_as_they_were(project: Path) -> None:
    for page in pages():
        assert "Errors by class" not in page
        assert "confusion" not in page.replace("docs", "")


def test_rows_that_were_not_counted_are_left_out(project: Path) -> None:
    """As after an update, when one row has been evaluated again."""
    drawn = draw(10)
    write(project, {row: by_seed for row, by_seed in drawn.items() if row == "train/teacher"})
    for row in ("train/student", "distil/at/student"):  # measured on as many images
        write_metrics(project, row, row_metrics(row, TOP1[row], n=600))
    assert section(pages()[0], "Errors by class")[0] == ["Class", "Images", "Teacher"]


def test_more_than_twenty_classes_have_no_picture_but_their_most_frequent_confusions(project: Path) -> None:
    drawn = draw(30, images=3000)
    write(project, drawn)
    markdown, html = pages(classes=30)
    assert len(section(markdown, "Errors by class")) == 1 + 20 + 1
    assert "the 20 worst of 30 are shown" in markdown
    assert "figures/confusion" not in markdown
    assert 'data-chart="confusion"' not in html
    header, *lines = section(markdown, "Most frequent confusions")
    assert header == ["Class", "Prediction", "Images", "Share, %"]
    pairs = Counter(
        pair
        for labels, found in drawn["distil/at/student"].values()
        for pair in zip(labels, found)
        if len(set(pair)) > 1
    )
    assert [float(line[2]) for line in lines] == [round(count / 3, 1) for _, count in pairs.most_common(10)]
    for label, prediction, images, share in lines:
        assert float(images) == round(pairs[int(label), int(prediction)] / 3, 1)
        assert float(share) == pytest.approx(float(images), abs=0.06)  # of 100 images per class


def test_mistakes_that_are_not_listed_count_as_errors_of_their_class(project: Path) -> None:
    counts = {("a", "a"): 5, ("a", "b"): 3, ("a", ""): 2, ("b", "b"): 10}
    write_confusions(project, {row: dict.fromkeys(SEEDS, counts) for row in TOP1})
    found = errors()
    assert found.student.errors == {"a": 50.0, "b": 0.0}
    assert found.student.mistakes[["label", "prediction"]].to_numpy().tolist() == [["a", "b"]]


def test_classes_without_validation_images_are_named_and_have_no_error(project: Path) -> None:
    drawn = draw(8)
    write(project, drawn)  # of the ten classes in params.yaml
    page = pages()[0]
    assert "2 of 10 classes have no validation images." in page
    assert len(section(page, "Errors by class")) == 1 + 8 + 1


@pytest.mark.parametrize("name", ["NA", "1e3", "a | b", "<b>cat</b>", 'say "no", twice'])
def test_any_class_name_is_shown_as_it_is(name: str, project: Path) -> None:
    write(project, draw(10), lambda label: name if label == 3 else f"class {label}")
    assert name in errors().student.errors
    markdown, html = pages()
    assert "<b>cat" not in html
    assert len([line for line in markdown.splitlines() if line.startswith("| class ")]) == 9


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.replace("0,0,0,", "0,0,0,x", 1), "damaged"),
        (lambda text: text[: len(text) // 2], "not of the same networks and images as the row's metrics"),
        (lambda text: text.replace("\n0,", "\n5,"), "not of the same networks and images as the row's metrics"),
        (lambda text: "", "damaged"),
    ],
    ids=["a number", "cut short", "another seed", "empty"],
)
def test_damaged_counts_are_refused(damage: Callable[[str], str], words: str, project: Path) -> None:
    write(project, draw(10))
    path = Path("results/toy/confusion/train/student.csv")
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=words) as error:
        errors()
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).endswith("run `moonshine evaluate train/student`")


@pytest.mark.parametrize("size", [WIDE, NARROW, FILES], ids=["wide", "narrow", "files"])
@pytest.mark.parametrize("classes", [2, 10, 20])
def test_the_picture_has_a_cell_per_confusion_within_its_window(size: Size, classes: int, project: Path) -> None:
    drawn = draw(classes)
    write(project, drawn, lambda label: f"a breed of dog with a long name, number {label}")
    measured = read(classes)[2]
    assert CONFUSION in drawable(measured)
    register_font()
    specification = FIGURES[CONFUSION].specification(measured, size)
    scene = vl_convert.vegalite_to_scenegraph(specification)["scenegraph"]
    pairs = {pair for found in drawn["distil/at/student"].values() for pair in zip(*found)}
    cells = [item for item in items(scene, "rect") if "height" in item]
    assert len(cells) == len(pairs)
    assert {round(item["width"], 3) for item in cells} == {round(item["height"], 3) for item in cells}
    assert min(item["width"] for item in cells) >= 11
    svg = vl_convert.vegalite_to_svg(specification, config=config(LIGHT))
    width = re.search(r'<svg[^>]* width="([\d.]+)"', svg)
    assert width
    assert float(width[1]) <= (358 if size is NARROW else 860)


def items(node: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The items of all marks of one type, without those of legends and axes."""
    found = []
    for item in node.get("items", []):
        if item.get("role") == "mark" and item.get("marktype") == kind:
            found += item["items"]
        found += items(item, kind)
    return found


def test_the_report_writes_the_section_and_removes_it_with_its_figures(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moonshine.stages.report.figure_files", lambda measured: dict.fromkeys(drawable(measured), b""))
    write(project, draw(10))
    report(read_params(Path("params.yaml")))
    page, figure = Path("results/toy/README.md"), Path("results/toy/figures/confusion")
    assert "## Errors by class" in page.read_text()
    assert figure.exists()
    shutil.rmtree("results/toy/confusion")
    report(read_params(Path("params.yaml")))
    assert "## Errors by class" not in page.read_text()
    assert not figure.exists()


def test_a_table_may_have_the_balanced_error(project: Path) -> None:
    written = measured_params()
    written["tables"][0].update(columns=["top1", "balanced_error"], published=[])
    write_params(project, written)
    for row in ("train/teacher", "train/student"):  # the third was evaluated by an earlier version
        spread = {seed: 10.0 + float(seed) for seed in SEEDS}
        metrics = row_metrics(row, TOP1[row], balanced_error={"mean": 11.0, "std": 1.0})
        for seed, value in spread.items():
            metrics["seeds"][seed]["balanced_error"] = value
        write_metrics(project, row, metrics)
    header, *lines = section(pages()[0], "All")
    column = header.index("Balanced error, %")
    assert [line[column] for line in lines] == ["11.00 ± 1.00", "11.00 ± 1.00", ""]
    params, rows, _ = read()
    table = table_csv(params.tables[0], rows).splitlines()
    assert "balanced_error,balanced_error_std" in table[0]
    assert ",11,1" in table[1]
