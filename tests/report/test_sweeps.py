"""Experiments that give one student more and more images or epochs: their figure, and what their page says."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import vl_convert

from benchmarks.separate_project import write_params
from moonshine import cli
from moonshine.params import read_params
from moonshine.report.figures.catalogue import FIGURES, drawable
from moonshine.report.figures.encoding import FILES, NARROW, WIDE, Size
from moonshine.report.figures.measured import Measured
from moonshine.report.figures.rendering import register_font
from moonshine.report.rows import read_rows
from moonshine.report.sweeps import find_sweep
from moonshine.runtime import signals
from tests.report.test_figures import marks_of
from tests.support.measured_project import measured_params, row_metrics, write_metrics, write_project

IMAGES = {300: (14.0, 9.0), 100: (30.0, 21.0), 900: (6.0, 5.0)}
"""Training images -> errors from scratch and distilled, not in the order of the images."""


def sweep_params(recipes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The student with each of these recipes, by name of the network, from scratch and distilled."""
    params = measured_params()
    student = params["networks"].pop("student")
    params["networks"] |= {name: {**student, "recipe": recipe} for name, recipe in recipes.items()}
    params["train"] = ["teacher", *recipes]
    params["distil"]["networks"] = list(recipes)
    rows = ["train/teacher"]
    params["titles"] = {"train/teacher": "Teacher"}
    for name in recipes:
        rows += [f"train/{name}", f"distil/at/{name}"]
        params["titles"] |= {f"train/{name}": f"Student {name}", f"distil/at/{name}": f"Student {name} + AT"}
    params["tables"][0].update(rows=rows, columns=["top1"], published=[])
    params["dataset"]["training"] = 1197
    params["attention_maps"] = {"scratch": rows[1] + "/seed0", "distilled": rows[2] + "/seed0", "images": []}
    return params


def images_params() -> dict[str, Any]:
    return sweep_params({f"n{images}": {"images": images} for images in IMAGES})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands run in this process."""
    write_project(tmp_path)
    write_params(tmp_path, images_params())
    for images, errors in IMAGES.items():
        for kind, error in zip(("train", "distil/at"), errors):
            spread = {str(seed): error + 0.2 * (seed - 1) for seed in range(3)}
            row = {**row_metrics("train/student", spread), "row": f"{kind}/n{images}"}
            write_metrics(tmp_path, f"{kind}/n{images}", row)
            for seed in range(3):
                path = tmp_path / f"results/toy/curves/{kind}/n{images}/seed{seed}.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("epoch,lr,train_top1,val_top1\n1,0.1,60,50\n2,0.1,30,25\n")
    path = tmp_path / "results/toy/attention-maps/distances.json"
    shown = read_params(tmp_path / "params.yaml").shown_models
    models = {role: {"model": model} for role, model in shown.items()}
    path.write_text(json.dumps({**json.loads(path.read_text()), "models": models}))
    monkeypatch.setattr(signals, "install_handlers", lambda: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measured() -> Measured:
    params = read_params(Path("params.yaml"))
    rows = read_rows(params)
    return Measured(list(rows.values()), {}, rows["train/teacher"], "0", [], sweep=find_sweep(params))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("size", [WIDE, NARROW, FILES])
def test_a_line_per_method_leads_from_few_images_to_many(size: Size) -> None:
    specification = FIGURES["error-against-images"].specification(measured(), size)
    register_font()
    drawn = list(marks_of(vl_convert.vegalite_to_scenegraph(specification)["scenegraph"]))
    lines = [item for kind, item in drawn if kind == "line"]
    points = [item for kind, item in drawn if kind == "symbol"]
    assert len(points) == 6
    assert len(lines) == 6
    for colour in {item["stroke"] for item in lines}:
        own = pd.DataFrame([(item["x"], item["y"]) for item in lines if item["stroke"] == colour], columns=["x", "y"])
        assert len(own) == 3
        assert own["x"].is_monotonic_increasing
        assert own["y"].is_monotonic_increasing, "further down is a smaller error"
        steps = own["x"].diff().dropna()
        assert steps.iloc[0] == pytest.approx(steps.iloc[1]), "100, 300 and 900 on a logarithmic axis"
    assert [item["text"] for kind, item in drawn if kind == "text"] == ["teacher: 2.00"]


@pytest.mark.usefixtures("project")
def test_pages_show_a_sweep_and_not_costs_that_are_all_the_same(project: Path) -> None:
    assert cli.main(["report"]) == 0
    for page in ("README.md", "report.html"):
        text = (project / "results/toy" / page).read_text()
        assert "Error against training images" in text
        assert "Error against parameters" not in text
        assert "Networks of one architecture had 100, 300 or 900 training images." in text
        assert "Trained in another way" not in text, "three brackets would only repeat it"
    assert (project / "results/toy/figures/error-against-images.svg").exists()


@pytest.mark.usefixtures("project")
def test_costs_are_shown_if_another_network_has_other_ones(project: Path) -> None:
    params = images_params()
    params["networks"]["wide"] = params["networks"]["teacher"]
    params["train"].append("wide")
    write_params(project, params)
    metrics = row_metrics("train/teacher", dict.fromkeys("012", 3.0))
    write_metrics(project, "train/wide", {**metrics, "row": "train/wide"})
    assert {"error-against-parameters", "error-against-macs", "error-against-images"} <= {*drawable(measured())}


@pytest.mark.usefixtures("project")
def test_a_row_that_is_trained_in_yet_another_way_is_told(project: Path) -> None:
    params = images_params()
    params["methods"]["at"]["recipe"] = {"weight_decay": 0.25}
    write_params(project, params)
    assert cli.main(["report"]) == 0
    page = (project / "results/toy/README.md").read_text()
    students = "Student n300 + AT, Student n100 + AT, Student n900 + AT"
    assert f"Trained in another way: {students} (weight decay 0.25)." in page


EPOCHS = {"e2": {"epochs": 2, "lr_steps": []}, "e4": {"epochs": 4, "lr_steps": []}, "e9": {"epochs": 9, "lr_steps": []}}
FEW = {f"n{images}": {"images": images} for images in (100, 300)}


@pytest.mark.parametrize(
    ("recipes", "words"),
    [
        (EPOCHS, "2, 4 or 9 epochs"),
        ({**FEW, "all": {}}, "100, 300 or 1,197 training images"),
        (
            {"a": {"images": 1000, "epochs": 2, "lr_steps": []}, **{k: {**v, "epochs": 6} for k, v in FEW.items()}},
            "100 images for 6 epochs or 300 images for 6 epochs or 1,000 images for 2 epochs",
        ),
        (FEW, None),
        ({**FEW, "faster": {"images": 900, "lr": 0.7}}, None),
        ({**FEW, "again": {"images": 100, "weight_decay": 0.0}}, None),
    ],
    ids=["epochs", "all images", "equal steps", "two points", "another learning rate", "one number twice"],
)
def test_networks_are_a_sweep_if_they_differ_in_nothing_else(
    recipes: dict[str, dict[str, Any]], words: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(tmp_path, sweep_params(recipes))
    monkeypatch.chdir(tmp_path)
    sweep = find_sweep(read_params(Path("params.yaml")))
    assert (sweep.in_words if sweep else None) == words
