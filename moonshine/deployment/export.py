"""`moonshine export`: a published model as ONNX, checked against PyTorch on real images before it is written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from moonshine.data.loading import open_images
from moonshine.deployment.class_names import class_names
from moonshine.deployment.images import load_images
from moonshine.deployment.model import logits_of, refuse_folder
from moonshine.deployment.onnx_file import export_onnx
from moonshine.errors import DataError, ParamsError
from moonshine.images.store import read_manifest
from moonshine.models.model_file import load_model
from moonshine.project import artefacts
from moonshine.project.records import ModelDescription
from moonshine.runtime.files import sha256
from moonshine.runtime.progress import say

SAMPLES = 64
EXPORTS = Path("exports")
OF_STAGES = (Path("models"), Path("data"))
"""Folders that only stages write to."""


def export(model: Path, output: Path | None, images: Sequence[Path], dataset: str | None) -> None:
    """Write `output`, by default exports/<model>.onnx, with a batch of any size and the description as metadata.

    It is compared with PyTorch on `images` or, without any, on the first validation images of the prepared `dataset`.
    Raises ParamsError (exit code 2) if `output` must not be written or the model is a folder, DataError (3) if there
    are no images of the kind that the model was made for, CheckpointError (8) if the exported network's logits differ
    too much for `check_onnx`; nothing is written then.
    """
    refuse_folder(model)
    path = output or _usual_place(model)
    _require_writable(path, model)
    network, description = load_model(model)
    samples = load_images(images, description) if images else _validation_images(dataset, model, description)
    logits_of(network, samples[:1], model)  # if a network cannot run, the exporter's error is no help
    names = class_names(description["classes"])
    metadata = {**description, "class_names": names, "source_sha256": sha256(model)}
    difference = export_onnx(network, path, samples, metadata=metadata, explanation=_explanation(description))
    size = path.stat().st_size
    say(f"{path}: {size:,} bytes, logits within {difference:.1e} of PyTorch's on {len(samples)} images")


def _require_writable(path: Path, model: Path) -> None:
    """Raise ParamsError (exit code 2) for a folder, the model itself or a file in a folder of the stages."""
    if path.is_dir():
        raise ParamsError(f"--output: {path} is a folder; name the file to write")
    if path.exists() and model.exists() and path.samefile(model):
        raise ParamsError(f"--output: {path} is the model itself; name another file")
    folder = path.parent.resolve()  # the file itself may be a link to DVC's cache
    for kept in OF_STAGES:
        if folder.is_relative_to(kept.resolve()):
            raise ParamsError(f"--output: {path} is in {kept}/, where only stages write; name a file elsewhere")


def _validation_images(dataset: str | None, model: Path, description: ModelDescription) -> torch.Tensor:
    """The first validation images of a prepared data set, which must be of the model's kind."""
    if dataset is None:
        raise DataError(f"{model}: to check its export, name images of its kind: --images PATH...")
    folder = artefacts.data_folder(dataset)
    manifest = read_manifest(folder)
    if (manifest["shape"], manifest["classes"]) != (description["input"], description["classes"]):
        raise DataError(
            f"{folder}: not the images that {model} was made for; name some to check with: --images PATH..."
        )
    images, _ = next(open_images(folder, "val", torch.device("cpu"), workers=1).evaluation_batches(SAMPLES))
    return images


def _usual_place(model: Path) -> Path:
    """exports/ plus the model's path below models/, or its name alone if it is elsewhere."""
    parts = model.with_suffix(".onnx").parts
    below = parts[parts.index("models") + 1 :] if "models" in parts else parts[-1:]
    return EXPORTS.joinpath(*below)


def _explanation(description: Mapping[str, Any]) -> str:
    channels, height, width = description["input"]
    preprocessing = description["preprocessing"]
    resize = (
        f"resize the whole image to {height} x {width}"
        if "resize" in preprocessing
        else f"resize the shorter side to {preprocessing['shorter_side']}, take the central {height} x {width}"
    )
    turn = "turn upright by EXIF orientation, " if preprocessing.get("exif_orientation") else ""
    mean, std = description["normalisation"]["mean"], description["normalisation"]["std"]
    return (
        f"Input `images`: float32 (batch, {channels}, {height}, {width}), from {'RGB' if channels == 3 else 'grey'} "
        f"pixels: {turn}{resize} (bilinear, antialiased), divide by 255, subtract {mean}, divide by {std} "
        "(by channel). "
        f"Output `logits`: float32 (batch, {len(description['classes'])}), one for each of the metadata's classes."
    )
