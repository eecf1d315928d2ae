"""The identity of a run: what determines its bytes, and nothing else.

Paths, the device's name, logging and checkpoint intervals are not in it; torch's version, the kind of device and
the number of processes are, for each of them rounds differently.
"""

import hashlib
import json
from typing import Any

import torch
import torchvision

from moonshine import artefacts
from moonshine.files import sha256
from moonshine.params import Params
from moonshine.stages import CODE, PACKAGE


def run_identity(
    params: Params, row: str, seed: int, architecture: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """All that determines the trained network of `row` with `seed`, as plain values."""
    stage, *method, _ = row.split("/")
    identity: dict[str, Any] = {
        "recipe": params.recipe.model_dump(),
        "network": architecture,
        "seed": seed,
        "data": sha256(artefacts.manifest(params.dataset.name)),
        "code": {module: sha256(PACKAGE / module) for module in CODE[stage]},
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": device.type,
        "processes": 1,
    }
    if method:
        identity["method"] = params.methods[method[0]].model_dump()
        identity["teacher"] = sha256(artefacts.teacher_model(params.experiment, params.teacher))
    return identity


def identity_hash(identity: dict[str, Any]) -> str:
    """16 hex digits that name the run's folder."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys whose values differ, as `recipe.lr: 0.1 -> 0.05`."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changed = "changed" if key in ("data", "teacher") or prefix == "code." else f"{before} -> {after}"
            found.append(f"{prefix}{key}: {changed}")
    return found
