"""Figures as Vega lays them out: names beside their own marks, within what room there is."""

import math
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import vl_convert

from benchmarks.separate_project import write_params
from moonshine.params import read_params
from moonshine.report.figures.catalogue import FIGURES
from moonshine.report.figures.encoding import FILES, NARROW, WIDE, Size
from moonshine.report.figures.labels import lacking, text_width, wrapped
from moonshine.report.figures.measured import Measured
from moonshine.report.figures.rendering import register_font
from moonshine.report.rows import read_rows
from tests.support.measured_project import measured_params, row_metrics, write_metrics, write_project


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
    measured = Measured(list(rows.values()), {}, None, None, read_params(Path("params.yaml")).recipe)
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


def test_names_are_wrapped_to_what_room_there_is() -> None:
    for title in hostile_titles().values():
        lines = wrapped(title, 92)
        assert "".join("".join(lines).split()) == "".join(title.split())
        assert all(text_width(line) <= 92 for line in lines)
    assert wrapped("Student", 92) == ["Student"]


def test_the_font_of_figures_has_what_titles_need() -> None:
    assert lacking("Größe ≈ ± Ω 字") == {"字"}
