"""Recipes with averages, warm-up and other optimisers, trained by the command line on one prepared data set."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from benchmarks.separate_project import write_params
from moonshine.runtime.files import sha256
from tests.support.project import run_moonshine, toy_params

RICH = {
    "schedule": "cosine",
    "lr_steps": [],
    "warmup_epochs": 1,
    "optimizer": "adamw",
    "lr": 0.002,
    "norm_weight_decay": 0.0,
    "clip_grad_norm": 1.0,
    "label_smoothing": 0.1,
    "ema_decay": 0.99,
    "zero_init_residual": True,
}


def params_with_recipes() -> dict[str, Any]:
    """Two networks without a teacher, one of which is averaged, and two students, one with every key."""
    params = toy_params()
    thin = params["networks"]["teacher"]
    constant = {"epochs": 5, "lr_steps": [], "batch_size": 64}
    params["networks"] |= {
        "teacher": {**thin, "recipe": constant},
        "averaged": {**thin, "recipe": {**constant, "ema_decay": 0.99}},
        "rich": {**thin, "recipe": RICH},
    }
    params["train"] = ["teacher", "averaged"]
    params["distil"]["networks"] = ["student", "rich"]
    params["recipe"]["batch_size"] = 300
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and the networks without a teacher."""
    folder = tmp_path_factory.mktemp("recipes")
    write_params(folder, params_with_recipes())
    run_moonshine("prepare", cwd=folder)
    for network in ("teacher", "averaged"):
        run_moonshine("train", network, "--seed", "0", cwd=folder)
    return folder


def curve(folder: Path, row: str) -> list[dict[str, str]]:
    with (folder / "results/toy/curves" / row / "seed0.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_curve_and_the_model_are_those_of_the_average(project: Path) -> None:
    """Training is as usual, and from the third epoch on the average's error is near that of the network itself."""
    usual, averaged = (curve(project, f"train/{network}") for network in ("teacher", "averaged"))
    of_training = ("epoch", "lr", "loss", "cross_entropy", "train_top1")
    assert [[line[key] for key in of_training] for line in usual] == [
        [line[key] for key in of_training] for line in averaged
    ]
    for one, other in zip(usual[2:], averaged[2:]):
        assert one["val_loss"] != other["val_loss"]
        assert float(other["val_top1"]) < float(one["val_top1"]) + 20, "at chance, it would be 90 %"
    one, other = (load_file(project / f"models/toy/train/{name}/seed0.safetensors") for name in ("teacher", "averaged"))
    assert one.keys() == other.keys()
    assert not one["bn1.running_mean"].equal(other["bn1.running_mean"]), "statistics are averaged too"
    assert one["bn1.num_batches_tracked"].equal(other["bn1.num_batches_tracked"])
    run_moonshine("evaluate", "train/averaged", cwd=project)
    metrics = json.loads((project / "results/toy/metrics/train/averaged.json").read_text())
    assert metrics["seeds"]["0"]["top1"] == pytest.approx(float(averaged[-1]["val_top1"]), abs=1e-4)


def test_only_keys_that_are_set_are_in_the_identity(project: Path) -> None:
    usual, averaged = (
        json.loads((project / f"models/toy/records/train/{name}/seed0.json").read_text())["identity"]["recipe"]
        for name in ("teacher", "averaged")
    )
    assert averaged == {**usual, "ema_decay": 0.99}
    assert not usual.keys() & (RICH.keys() - {"lr", "lr_steps"})


def test_students_with_unlike_recipes_have_the_bytes_together_that_they_have_alone(
    project: Path, tmp_path: Path
) -> None:
    together, alone = (shutil.copytree(project, tmp_path / name) for name in ("together", "alone"))
    said = run_moonshine("distil", "--together", "--seed", "0", cwd=together).stderr
    assert "MB more in its step" in said, "they share batches"
    assert (
        "distil/at/rich: seed 0, 1,197 images, global batch size 300, 2 epochs, lr 0.002 to 0 (cosine), "
        "warmup_epochs 1, optimizer adamw, norm_weight_decay 0.0, clip_grad_norm 1.0, label_smoothing 0.1, "
        "ema_decay 0.99, zero_init_residual True, cpu"
    ) in said
    for student in ("student", "rich"):
        run_moonshine("distil", f"at/{student}", "--seed", "0", cwd=alone)
        ours, theirs = (
            [sha256(path) for path in folder.glob(f"runs/toy/distil/at/{student}/seed0/*/final.safetensors")]
            for folder in (together, alone)
        )
        assert ours == theirs
