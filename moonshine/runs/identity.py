"""The identity of a run: what determines its bytes, and nothing else.

It leaves out paths, logging and checkpoint intervals, and the device: a finished run may be published on a machine
without its GPU. It has the number of processes (in the recipe) and torch's version, because both change rounding, and
for JPEG images or TrivialAugment the versions of the libraries that decode, crop and change images. Nothing here
imports torch.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moonshine.errors import DataError
from moonshine.images.store import read_manifest
from moonshine.models.architecture import architecture_of
from moonshine.params import Params
from moonshine.params.schema import Augmentation
from moonshine.project import artefacts
from moonshine.project.graph import CODE, PACKAGE, code_files
from moonshine.project.records import Manifest
from moonshine.project.rows import Row
from moonshine.runtime.files import sha256

ENVIRONMENT = ("torch", "torchvision", "processes", "pillow", "jpeg", "numpy")
"""Parts of a run's identity that describe where it ran, which may not be this machine."""

LATER_KEYS_OF_METHODS = ("cross_entropy", "standardise_logits", "dist", "dkd", "ttm")
"""Keys of a method that are not in its identity if they are left out, as those of runs from before them."""


def run_identity(params: Params, row: Row, seed: int) -> dict[str, Any]:
    """All that determines the trained network of `row` with `seed`, as plain values."""
    manifest = read_manifest(artefacts.data_folder(params.dataset.name))
    identity: dict[str, Any] = {
        **identity_in_params(params, row, len(manifest["classes"]), manifest["shape"][0]),
        "seed": seed,
        **_data_and_code(params, row.stage, params.recipe_of(row).augmentation, manifest),
    }
    if params.needs_teacher(row):
        identity["teacher"] = _teacher_hash(artefacts.named_model(params.experiment, params.teacher))
    return identity


def search_identity(params: Params, name: str) -> dict[str, Any]:
    """All that determines the potentials that the search `name` finds, as plain values."""
    augmentation = params.recipe.augmentation
    manifest = read_manifest(artefacts.data_folder(params.dataset.name))
    return {
        **latencies_identity(params, name),
        "search": params.search[name].model_dump(exclude_none=True),
        "network": params.search_architecture(name),
        "recipe": {"augmentation": augmentation.model_dump(), "threads": params.recipe.threads},
        **_data_and_code(params, "search", augmentation, manifest),
    }


def latencies_identity(params: Params, name: str) -> dict[str, Any]:
    """The sha256 of the file with the latencies that a search goes by.

    Nothing for searches with another budget, and without the file, which a search refuses.
    """
    machine = params.search[name].machine
    if machine is None:
        return {}
    try:
        return {"latencies": sha256(artefacts.block_latency(params.experiment, machine))}
    except OSError:
        return {}


def _data_and_code(params: Params, stage: str, augmentation: Augmentation, manifest: Manifest) -> dict[str, Any]:
    return {
        "data": sha256(artefacts.manifest(params.dataset.name)),
        "code": {module: sha256(PACKAGE / module) for module in code_files(CODE[stage])},
        "torch": version("torch"),
        "torchvision": version("torchvision"),
        **(_decoders() if manifest["encoding"] == "jpeg" or augmentation.trivial_augment else {}),
    }


def identity_in_params(params: Params, row: Row, classes: int, in_channels: int) -> dict[str, Any]:
    """The parts that params.yaml alone determines, given the number of classes and of image channels.

    "init" is the word for the teacher, or the sha256 of the file that the weights begin with, wherever that is; a
    network without `init` has no such part.
    """
    network = params.networks[row.network]
    described = architecture_of(network, classes, in_channels)
    recipe = params.recipe_of(row)
    # a later key that is left out does not change the hash of runs from before it; processes was there from the start
    left_out = {key for key, value in recipe if value is None} - {"processes"}
    parts: dict[str, Any] = {"recipe": recipe.model_dump(exclude=left_out), "network": described}
    if row.method:
        method = params.methods[row.method]
        later = {key for key in LATER_KEYS_OF_METHODS if getattr(method, key) is None}
        parts["method"] = method.model_dump(exclude={"recipe", *later})
    if network.init is not None:
        parts["init"] = network.init if isinstance(network.init, str) else network.init.sha256
    return parts


def _decoders() -> dict[str, str | None]:
    """Versions of what turns JPEG images into pixels: Pillow, its JPEG library, and numpy, which draws the crops.

    TrivialAugment is Pillow's arithmetic too.
    """
    from PIL import features

    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return {"pillow": version("pillow"), "jpeg": jpeg, "numpy": version("numpy")}


def _teacher_hash(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise DataError(f"{path}: no teacher there ({error.strerror}); run its stage or `dvc pull`") from None


def identity_hash(identity: dict[str, Any]) -> str:
    """16 hex digits that name the run's folder."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
