"""The finished ImageNet experiment as engines see it: every file of its graph is there, none of them is real.

Manifest, records and descriptions say what the params ask for, because both engines' plans go by them, too.
"""

import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.separate_project import ROOT, copy_this_project, load_params_dict
from moonshine.checks.data import ORIGINS
from moonshine.checks.made_for import DESCRIPTION
from moonshine.engines.dvc_project import open_project
from moonshine.engines.record import commit
from moonshine.engines.snakemake_plan import snakemake
from moonshine.params import Params, read_params
from moonshine.project import artefacts
from moonshine.runs.identity import identity_in_params
from moonshine.runtime.files import sha256, write_checked_json, write_json


def make_finished_imagenet(folder: Path) -> None:
    """All rows of experiments/imagenet.yaml, recorded by both engines beside the experiments that dvc.lock has."""
    copy_this_project(folder, load_params_dict(ROOT / "experiments" / "imagenet.yaml"))
    shutil.copy(ROOT / "dvc.lock", folder)
    with chdir(folder), open_project() as repo:
        for stage in repo.index.stages:
            for out in stage.outs:
                _write(Path(out.fs_path))
        _describe(read_params(artefacts.PARAMS))
        snakemake("--touch", "--forceall", "--cores", "1", "--quiet", "all", "--")
        commit(repo, [stage.addressing for stage in repo.index.stages])


def _write(output: Path) -> None:
    """A file that differs from all others, or a folder with one; the output of the stage `check` is there already."""
    file = output if output.suffix else output / "content.csv"
    if file.name == artefacts.PARAMS_CHECKED.name:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{file}\n")


def _describe(params: Params) -> None:
    """Write what the data and the models say of themselves; fetched models first, whose hashes others have."""
    manifest = artefacts.manifest(params.dataset.name)
    write_checked_json(manifest, _manifest(params))
    for row in params.rows:
        if row.stage == "fetch":
            network = params.architecture(row.network)
            metadata = {DESCRIPTION: json.dumps({"architecture": network})}
            save_file({"weight": np.zeros(1)}, artefacts.model(params.experiment, row), metadata)
            write_json(artefacts.record(params.experiment, row), {})
    inputs = {"data": sha256(manifest), "teacher": sha256(artefacts.named_model(params.experiment, params.teacher))}
    for row in params.seeded_rows:
        for seed in params.seeds_of(row):
            identity = {
                **identity_in_params(params, row, params.dataset.classes, params.dataset.channels),
                **inputs,
                "seed": seed,
            }
            model = sha256(artefacts.model(params.experiment, row, seed))
            record = {"row": row.name, "sha256": model, "identity": identity}
            write_json(artefacts.record(params.experiment, row, seed), record)


def _manifest(params: Params) -> dict[str, Any]:
    dataset, files = params.dataset, params.dataset.files or {}
    return {
        "origin": {
            "source": ORIGINS[dataset.source],
            "checksums": {role: file.sha256 or file.md5 for role, file in files.items()},
            "resize": dataset.resize,
        },
        "shape": [dataset.channels, dataset.size, dataset.size],
        "classes": [f"class {number}" for number in range(dataset.classes)],
        "evaluation": dataset.evaluation.model_dump() if dataset.evaluation else None,
        "splits": {split: {"count": 50_000, "sha256": 64 * "0"} for split in ("train", "val")},
    }
