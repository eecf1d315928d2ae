"""Figures as Vega lays them out: names beside their own marks, within what room there is."""

import math
import re
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import vl_convert

from benchmarks.separate_project import write_params
from moonshine.params import read_params
from moonshine.report.curves import read_curves
from moonshine.report.figures.catalogue import FIGURES
from moonshine.report.figures.encoding import FILES, NARROW, WIDE, Size
from moonshine.report.figures.labels import lacking, text_width, wrapped
from moonshine.report.figures.measured import Measured
from moonshine.report.figures.rendering import register_font, render
from moonshine.report.figures.scales import Scale
from moonshine.report.rows import read_rows
from tests.support.measured_project import TOP1, measured_params, row_metrics, write_metrics, write_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path)


def marks_of(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mark of a scene graph but those of legends and axes, with its type."""
    for item in node.get("items", []):
        if node.get("role") == "mark":
            yield node["marktype"], item
        yield from marks_of(item)


def hostile_titles() -> dict[str, str]:
    return {
        "train/teacher": "a, \"b\" 'c' \\ </script>",
        "train/student": "Resnet34 with depthwise separable convolutions in all of its layers",
        "distil/at/student": "Resnet34WithDepthwiseSeparableConvolutionsInAllOfItsLayers and more",
    }


@pytest.mark.parametrize("size", [WIDE, NARROW, FILES])
def test_each_name_in_a_figure_is_beside_its_own_marks(
    size: Size, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are drawn: Vega's own places of marks and texts, which know nothing of how names were placed."""
    written = measured_params()
    networks = {f"net{number}": written["networks"]["student"] for number in range(12)}
    written.update(networks={**written["networks"], **networks}, train=[*written["train"], *networks])
    write_params(project, written)
    for number, name in enumerate(networks):  # some close together, some as costly as others
        costs = {"parameters": 3_000 + 400 * (number // 2) ** 2, "learnable": 100, "macs": 10}
        spread = {seed: 7.0 - 0.4 * number + 0.1 * float(seed) for seed in ("0", "1", "2")}
        write_metrics(project, f"train/{name}", {**row_metrics("train/student", spread), **costs})
    monkeypatch.chdir(project)
    rows = read_rows(read_params(Path("params.yaml")))
    measured = Measured(list(rows.values()), {}, None, None, [])
    specification = FIGURES["error-against-parameters"].specification(measured, size)
    register_font()
    drawn = list(marks_of(vl_convert.vegalite_to_scenegraph(specification)["scenegraph"]))
    points = [(item["x"], item["y"]) for kind, item in drawn if kind == "symbol" and item.get("shape")]
    texts = [item for kind, item in drawn if kind == "text" and item["text"] in measured.networks.values()]
    assert len(texts) >= 6
    assert len({item["text"] for item in texts}) == len(texts)
    data = pd.read_csv(StringIO(next(csv for csv in specification["datasets"].values() if "label_x" in csv)))
    boxes = []
    for item in texts:
        half = text_width(item["text"]) / 2
        box = (item["x"] - half, item["y"] - 6, item["x"] + half, item["y"] + 6)
        assert box[0] >= 0
        assert box[2] <= size.plot
        assert box[1] >= 0
        assert box[3] <= size.height
        for other in boxes:
            assert box[0] >= other[2] or other[0] >= box[2] or box[1] >= other[3] or other[1] >= box[3]
        boxes.append(box)
        away = [math.hypot(max(box[0] - x, x - box[2], 0), max(box[1] - y, y - box[3], 0)) for x, y in points]
        nearest = data.iloc[away.index(min(away))]
        assert nearest["network"] == item["text"]
        assert min(away) > 2, "no name lies on a mark"


def read_measured(project: Path, monkeypatch: pytest.MonkeyPatch) -> Measured:
    monkeypatch.chdir(project)
    params = read_params(Path("params.yaml"))
    rows = read_rows(params)
    return Measured(list(rows.values()), read_curves(params), rows["train/teacher"], "0", params.recipe.lr_steps)


def drawn_marks(measured: Measured, figure: str) -> list[tuple[str, dict[str, Any]]]:
    register_font()
    specification = FIGURES[figure].specification(measured, FILES)
    return list(marks_of(vl_convert.vegalite_to_scenegraph(specification)["scenegraph"]))


def test_no_mark_is_below_the_front(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although marks are side by side: the worse one of the student is to the left, and better than the teacher."""
    small = {"parameters": 1_000, "learnable": 900, "macs": 10_000}
    write_metrics(
        project, "train/teacher", {**row_metrics("train/teacher", {"0": 12.0, "1": 12.5, "2": 13.0}), **small}
    )
    drawn = drawn_marks(read_measured(project, monkeypatch), "error-against-parameters")
    points = [(item["x"], item["y"]) for kind, item in drawn if kind == "symbol"]
    line = [(item["x"], item["y"]) for kind, item in drawn if kind == "line"]
    assert len(line) == 2
    for x, y in points:
        level = [at for left, at in line if left <= x + 0.01]
        assert not level or y <= level[-1] + 0.01, "further down is a smaller error"


def test_distilled_networks_have_a_front_of_their_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the figure tells whether distilling moves it. Below neither line are marks of its own kind."""
    written = measured_params()
    written["networks"]["small"] = written["networks"]["student"]
    written["train"].append("small")
    written["distil"]["networks"].append("small")
    write_params(project, written)
    errors = {"train/small": 11.0, "distil/at/small": 9.0, "distil/at/student": 4.0, "train/student": 8.0}
    for row, error in {**errors, "train/teacher": 3.0}.items():
        costs = {"parameters": 1_000, "learnable": 900, "macs": 10_000} if "small" in row else {}
        metrics = row_metrics(row.replace("small", "student"), {"0": error, "1": error, "2": error})
        write_metrics(project, row, {**metrics, "row": row, **costs})
    figure = "error-against-parameters"
    monkeypatch.chdir(project)
    rows = read_rows(read_params(Path("params.yaml")))
    measured = Measured(list(rows.values()), {}, rows["train/teacher"], "0", [])
    assert "dotted of networks without a teacher and dashed of distilled ones" in FIGURES[figure].said(measured)
    drawn = drawn_marks(measured, figure)
    symbols = [item for kind, item in drawn if kind == "symbol"]
    assert len(symbols) == 5
    fronts: dict[tuple[float, ...], list[tuple[float, float]]] = {}
    for kind, item in drawn:
        if kind == "line":
            fronts.setdefault(tuple(item["strokeDash"]), []).append((item["x"], item["y"]))
    (_, alone), (_, distilled) = sorted(fronts.items())
    assert (len(alone), len(distilled)) == (3, 2), "the teacher is on the front of networks without one"
    for line, shape in ((alone, "circle"), (distilled, "triangle-up")):
        own = [(item["x"], item["y"]) for item in symbols if item["shape"] == shape]
        assert len(own) == len(line)
        for x, y in own:
            assert y <= [at for left, at in sorted(line) if left <= x + 0.01][-1] + 0.01


def test_costs_that_hardly_differ_are_told_apart_within_the_plot(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, row in enumerate(TOP1):
        write_metrics(project, row, {**row_metrics(row, TOP1[row]), "parameters": 21_797_000 + 300 * number})
    drawn = drawn_marks(read_measured(project, monkeypatch), "error-against-parameters")
    places = [item["x"] for kind, item in drawn if kind == "symbol"]
    assert len(set(places)) == 3
    assert all(0 < x < FILES.plot for x in places)
    scale = Scale.fitted([21_797_000, 21_797_600], 660, (60, 60), logarithmic=True)
    assert len(scale.ticks()) >= 3


def test_an_error_bar_stays_within_what_an_error_can_be(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_metrics(project, "train/teacher", row_metrics("train/teacher", {"0": 0.0, "1": 0.0, "2": 3.0}))
    drawn = drawn_marks(read_measured(project, monkeypatch), "error-against-parameters")
    for kind, item in drawn:
        if kind == "rule":
            assert max(item["y"], item["y2"]) <= FILES.height


@pytest.mark.parametrize("epochs", [2, 3])
def test_each_epoch_of_a_short_run_has_one_tick(epochs: int, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = measured_params()
    params["recipe"].update(epochs=epochs, lr_steps=[1])
    write_params(project, params)
    for path in (project / "results/toy/curves").rglob("*.csv"):
        header, *lines = path.read_text().splitlines()
        more = [",".join([str(number), *lines[-1].split(",")[1:]]) for number in range(3, epochs + 1)]
        path.write_text("\n".join([header, *lines, *more]) + "\n")
    svg = render("curves", FIGURES["training-curves"].specification(read_measured(project, monkeypatch), FILES))
    numbers = re.findall(r">(\d)</text>", svg["curves.svg"].decode())
    panels = 2
    assert sorted(number for number in numbers if number in "123"[:epochs]) == sorted(
        panels * [str(number) for number in range(1, epochs + 1)]
    )


def test_networks_of_one_title_stay_apart(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = measured_params()
    params["titles"]["train/teacher"] = "student"
    params["train"] = ["teacher"]
    params["methods"]["kd"] = {"alpha": 0.9, "temperature": 4.0}
    params["distil"]["methods"] = ["at", "kd"]
    params["attention_maps"]["scratch"] = "train/teacher/seed0"
    params["tables"][0]["rows"] = ["train/teacher", "distil/at/student", "distil/kd/student"]
    params["titles"].pop("train/student")
    write_params(project, params)
    write_metrics(project, "distil/kd/student", row_metrics("distil/at/student", TOP1["distil/at/student"]))
    shutil.copytree(project / "results/toy/curves/distil/at", project / "results/toy/curves/distil/kd")
    assert list(read_measured(project, monkeypatch).networks.values()) == ["student", "student (student)"]


def test_rows_that_begin_with_weights_are_not_called_from_scratch(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(read_measured(project, monkeypatch).looks) == {"from scratch", "distilled"}
    params = measured_params()
    params["networks"]["student"]["init"] = {"url": "weights.pth", "sha256": "0" * 64}
    write_params(project, params)
    assert set(read_measured(project, monkeypatch).looks) == {"labels alone", "distilled"}


def test_names_are_wrapped_to_what_room_there_is() -> None:
    for title in hostile_titles().values():
        lines = wrapped(title, 92)
        assert "".join("".join(lines).split()) == "".join(title.split())
        assert all(text_width(line) <= 92 for line in lines)
    assert wrapped("Student", 92) == ["Student"]


def test_the_font_of_figures_has_what_titles_need() -> None:
    assert lacking("Größe ≈ ± Ω 字") == {"字"}
