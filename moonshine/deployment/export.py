"""`moonshine export`: a published model as ONNX, checked against PyTorch on real images before it is written."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from moonshine.data.loading import open_images
from moonshine.deployment.images import load_images
from moonshine.deployment.model import refuse_folder
from moonshine.errors import DataError, ParamsError
from moonshine.export.calibration import calibration_batches
from moonshine.export.description import explanation, metadata_of
from moonshine.export.logits import logits_of
from moonshine.export.onnx_file import check_onnx, export_onnx, to_onnx
from moonshine.images.store import read_manifest
from moonshine.models.model_file import load_model
from moonshine.project import artefacts
from moonshine.project.records import ModelDescription
from moonshine.runtime.files import sha256, write_bytes
from moonshine.runtime.progress import say

SAMPLES = 64
CALIBRATION_IMAGES = 256
EXPORTS = Path("exports")
OF_STAGES = (Path("models"), Path("data"))
"""Folders that only stages write to."""


def export(
    model: Path, output: Path | None, images: Sequence[Path], dataset: str | None, in_int8: bool = False
) -> None:
    """Write `output`, by default exports/<model>.onnx, with a batch of any size and the description as metadata.

    It is compared with PyTorch on `images` or, without any, on the first validation images of the prepared `dataset`.
    With `in_int8` it is then quantised, by default to exports/<model>-int8.onnx, calibrated on the same `images` or on
    training images of `dataset`; how far its logits are from PyTorch's is printed.

    Raises ParamsError (exit code 2) if `output` must not be written or the model is a folder, DataError (3) if there
    are no images of the kind that the model was made for, CheckpointError (8) if the exported network's logits differ
    too much for `check_onnx`, or if it cannot be quantised; nothing is written then.
    """
    refuse_folder(model)
    path = output or _usual_place(model, in_int8)
    _require_writable(path, model)
    network, description = load_model(model)
    samples = load_images(images, description) if images else _validation_images(dataset, model, description)
    logits_of(network, samples[:1], model)  # if a network cannot run, the exporter's error is no help
    metadata, words = metadata_of(description, sha256(model)), explanation(description)
    if not in_int8:
        difference = export_onnx(network, path, samples, metadata=metadata, explanation=words)
        size = path.stat().st_size
        say(f"{path}: {size:,} bytes, logits within {difference:.1e} of PyTorch's on {len(samples)} images")
        return
    from moonshine.export.quantisation import quantise
    from moonshine.export.session import OnnxNetwork

    exported = to_onnx(network, samples[:2].contiguous(), metadata, words)
    check_onnx(exported, network, samples.contiguous(), path)
    content = quantise(exported, _calibration(samples, dataset if not images else None, description))
    logits = logits_of(network, samples, model)
    found = logits_of(OnnxNetwork(content), samples, path)
    difference = float((found - logits).abs().max() / logits.abs().max())
    same = int((found.argmax(1) == logits.argmax(1)).sum())
    write_bytes(path, content)
    say(
        f"{path}: {len(content):,} bytes, logits within {difference:.1e} of PyTorch's and the same class for {same} of "
        f"{len(samples)} images"
    )


def _calibration(samples: torch.Tensor, dataset: str | None, description: ModelDescription) -> Iterator[np.ndarray]:
    if dataset is None:
        return iter([samples.contiguous().numpy()])
    folder = artefacts.data_folder(dataset)
    count = min(CALIBRATION_IMAGES, read_manifest(folder)["splits"]["train"]["count"])
    return calibration_batches(folder, count, description["normalisation"])


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


def _usual_place(model: Path, in_int8: bool) -> Path:
    """exports/ plus the model's path below models/, or its name alone if it is elsewhere."""
    parts = model.with_name(model.stem + ("-int8.onnx" if in_int8 else ".onnx")).parts
    below = parts[parts.index("models") + 1 :] if "models" in parts else parts[-1:]
    return EXPORTS.joinpath(*below)
