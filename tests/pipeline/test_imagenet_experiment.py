"""experiments/imagenet.yaml from archives and published checkpoints to its tables, at small scale, by either engine.

What is put in place of the original: where the files lie and their checksums, one epoch instead of a hundred, and
64 pixels instead of 224, with which both runs would take hours on two cores.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml

from benchmarks.separate_project import ROOT
from moonshine.params import read_params
from moonshine.project.rows import Row
from tests.support.bad_server import serving
from tests.support.checkpoints import write_checkpoint
from tests.support.imagenet_archives import Archives
from tests.support.project import copy_project, files_below, run, run_moonshine

PUBLISHED = {"resnet34": False, "resnet18": True}
"""Name: whether its file has the format of 2017."""


def small_scale(params: dict[str, Any], raw: Path, addresses: dict[str, str], digests: dict[str, str]) -> None:
    params["dataset"]["files"] = Archives(classes=1000, train=1, val=40).write(raw)
    params["dataset"] |= {"size": 64, "evaluation": {"resize": 72}}
    params["machine"] = {"raw_data": {"imagenet": str(raw)}, "device": "cpu"}
    params["recipe"] |= {"epochs": 1, "lr_steps": []}
    params["methods"]["at-paper"]["first_epoch"] = 1
    for name, published in params["fetch"].items():
        published |= {"url": f"{addresses[name]}/truncate/fine/{name}.pth", "sha256": digests[name]}


def test_the_experiment_for_gpus_differs_in_precision_and_machine_alone() -> None:
    original, for_gpus = (
        yaml.safe_load((ROOT / f"experiments/{name}.yaml").read_text()) for name in ("imagenet", "imagenet-bf16")
    )
    assert for_gpus["machine"]["device"] == "cuda"
    assert for_gpus["machine"]["raw_data"] == original["machine"]["raw_data"]
    recipe = {**original["recipe"], "precision": "bfloat16"}
    expected = {**original, "experiment": "imagenet-bf16", "recipe": recipe, "machine": for_gpus["machine"]}
    assert for_gpus == expected


def test_the_experiment_with_a_modern_recipe_has_the_same_data_networks_and_teacher() -> None:
    for_gpus, modern = (
        yaml.safe_load((ROOT / f"experiments/{name}.yaml").read_text()) for name in ("imagenet-bf16", "imagenet-modern")
    )
    for key in ("seeds", "dataset", "fetch", "teacher", "train", "attention_maps", "machine"):
        assert modern[key] == for_gpus[key]
    assert modern["networks"] == {name: for_gpus["networks"][name] for name in modern["networks"]}
    params = read_params(ROOT / "experiments/imagenet-modern.yaml")
    trained = {row.name for row in params.seeded_rows}
    smoothing = {row.name: params.recipe_of(row).label_smoothing for row in params.seeded_rows}
    assert {name for name, share in smoothing.items() if not share} == {
        row for row in smoothing if row.startswith(("distil/kd/", "distil/patient/"))
    }
    patient = Row.parse("distil/patient/resnet34-sep")
    assert {row.name: params.training_size(row) for row in params.seeded_rows if row != patient} == dict.fromkeys(
        trained - {patient.name}, 176
    )
    assert (params.training_size(patient), params.recipe_of(patient).augmentation.mixup) == (224, 1.0)
    assert not any(trained & published.values.keys() for table in params.tables for published in table.published)


@pytest.mark.slow
def test_every_row_of_the_imagenet_experiment_by_either_engine(tmp_path: Path) -> None:
    params = yaml.safe_load((ROOT / "experiments/imagenet.yaml").read_text())
    files = {name: tmp_path / f"{name}.pth" for name in PUBLISHED}
    torch.manual_seed(0)
    digests = {  # torchvision's keys and shapes, with weights that nobody trained
        name: write_checkpoint(torchvision.models.get_model(name).state_dict(), files[name], of_2017)
        for name, of_2017 in PUBLISHED.items()
    }
    with ExitStack() as servers:
        addresses = {name: servers.enter_context(serving(file.read_bytes()))[0] for name, file in files.items()}
        small_scale(params, tmp_path / "raw", addresses, digests)
        by_snakemake, by_dvc = (copy_project(tmp_path / engine, params) for engine in ("snakemake", "dvc"))
        run("snakemake", "--cores", str(os.cpu_count()), cwd=by_snakemake)
        run("dvc", "repro", cwd=by_dvc)
    models = files_below(by_snakemake / "models", ".safetensors")
    assert len(models) == 12
    assert models == files_below(by_dvc / "models", ".safetensors")
    results = files_below(by_snakemake / "results", ".md", ".json", ".csv", ".svg")
    assert results == files_below(by_dvc / "results", ".md", ".json", ".csv", ".svg")
    page = (by_snakemake / "results/imagenet/README.md").read_text()
    assert "not run" not in page
    for title in params["titles"].values():
        assert f"| {title} " in page
    for project in (by_snakemake, by_dvc):
        assert "up to date" in run("dvc", "status", cwd=project).stdout
        assert "Nothing to be done" in run("snakemake", "--dry-run", cwd=project).stdout
    said = run_moonshine("lineage", "models/imagenet/distil/at/resnet18/seed0.safetensors", cwd=by_snakemake).stdout
    assert params["fetch"]["resnet34"]["sha256"] in said
    for described in params["dataset"]["files"].values():
        assert described["md5"] in said
