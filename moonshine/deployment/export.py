"""`moonshine export`: a published model as ONNX or for OpenVINO, checked on real images before it is written."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from moonshine.data.loading import open_images
from moonshine.deployment.features_file import export_features
from moonshine.deployment.images import load_images
from moonshine.deployment.model import refuse_folder
from moonshine.deployment.openvino_file import export_openvino, import_openvino
from moonshine.errors import DataError, ParamsError
from moonshine.export.calibration import calibration_batches
from moonshine.export.description import explanation, metadata_of
from moonshine.export.logits import logits_of
from moonshine.export.onnx_file import check_onnx, export_onnx, to_onnx
from moonshine.images.store import read_manifest
from moonshine.models.attention_layers import attention_layers
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


Format = Literal["onnx", "onnx-int8", "openvino"]
ENDINGS: dict[Format, str] = {"onnx": ".onnx", "onnx-int8": "-int8.onnx", "openvino": ".xml"}


def export(
    model: Path,
    output: Path | None,
    images: Sequence[Path],
    dataset: str | None,
    file_format: Format = "onnx",
    features: bool = False,
) -> None:
    """Write `output`, by default exports/<model>.onnx, with a batch of any size and the description as metadata.

    It is compared with PyTorch on `images` or, without any, on the first validation images of the prepared `dataset`.
    "onnx-int8" is then quantised, by default to exports/<model>-int8.onnx, calibrated on the same `images` or on
    training images of `dataset`; how far its logits are from PyTorch's is printed. "openvino" is a pair of files,
    .xml and .bin. With `features` the outputs are the feature maps at the ends of the stages, in place of the logits,
    by default in exports/<model>-features.onnx or .xml.

    Raises ParamsError (exit code 2) if `output` must not be written, the model is a folder or no stages of its network
    are known, DataError (3) if there are no images of the kind that the model was made for, MachineError (5) without
    OpenVINO, CheckpointError (8) if the exported network computes something else or cannot be converted or quantised;
    nothing is written then.
    """
    refuse_folder(model)
    path = output or _usual_place(model, ("-features" if features else "") + ENDINGS[file_format])
    _require_writable(path, model, file_format)
    if features and file_format == "onnx-int8":
        raise ParamsError("--features: feature maps are exported in float32 only; leave out --format onnx-int8")
    if file_format == "openvino":
        import_openvino()  # before the work
    network, description = load_model(model)
    samples = load_images(images, description) if images else _validation_images(dataset, model, description)
    logits_of(network, samples[:1], model)  # if a network cannot run, the exporter's error is no help
    metadata, words = metadata_of(description, sha256(model)), explanation(description)
    if features:
        _export_features(network, path, samples, description, metadata)
    elif file_format == "onnx-int8":
        calibration = _calibration(samples, dataset if not images else None, description)
        _export_int8(network, path, samples, calibration, metadata, words, model)
    else:
        write = export_openvino if file_format == "openvino" else export_onnx
        difference = write(network, path, samples, metadata=metadata, explanation=words)
        say(f"{_written(path)}, logits within {difference:.1e} of PyTorch's on {len(samples)} images")


def _export_features(
    network: nn.Module, path: Path, samples: torch.Tensor, description: ModelDescription, metadata: dict[str, Any]
) -> None:
    layers = attention_layers(network) or tuple(description["architecture"].get("points") or ())
    if not layers:
        raise ParamsError(
            f"--features: no stages of {description['architecture']['arch']} are known; name its layers in Python: "
            "moonshine.export_features(network, path, images, layers=[...])"
        )
    words = _input_of_features(description)
    try:
        written = export_features(network, path, samples, layers=layers, metadata=metadata, explanation=words)
    except ValueError as error:
        raise ParamsError(f"--features: not possible for this network; {error}") from None
    height, width = samples.shape[2:]
    maps = ", ".join(f"{each['name']} (stride {each['stride']})" for each in written["features"])
    size = "images of any size" if written["any_size"] else f"images of {height} x {width} only"
    say(
        f"{_written(path)}, {maps} for {size}, within {written['difference']:.1e} of PyTorch's on {len(samples)} images"
    )


def _input_of_features(description: ModelDescription) -> str:
    """How to prepare images for a backbone, which does not depend on their size."""
    mean, std = description["normalisation"]["mean"], description["normalisation"]["std"]
    channels = description["input"][0]
    return (
        f"Input `images`: float32 (batch, {channels}, height, width), from {'RGB' if channels == 3 else 'grey'} "
        f"pixels: divide by 255, subtract {mean}, divide by {std} (by channel)."
    )


def _export_int8(
    network: nn.Module,
    path: Path,
    samples: torch.Tensor,
    calibration: Iterator[np.ndarray],
    metadata: dict[str, Any],
    words: str,
    model: Path,
) -> None:
    from moonshine.export.quantisation import quantise
    from moonshine.export.session import OnnxNetwork

    exported = to_onnx(network, samples[:2].contiguous(), metadata, words)
    check_onnx(exported, network, samples.contiguous(), path)
    content = quantise(exported, calibration)
    logits = logits_of(network, samples, model)
    found = logits_of(OnnxNetwork(content), samples, path)
    difference = float((found - logits).abs().max() / logits.abs().max())
    same = int((found.argmax(1) == logits.argmax(1)).sum())
    write_bytes(path, content)
    say(
        f"{path}: {len(content):,} bytes, logits within {difference:.1e} of PyTorch's and the same class for {same} of "
        f"{len(samples)} images"
    )


def _written(path: Path) -> str:
    if path.suffix != ".xml":
        return f"{path}: {path.stat().st_size:,} bytes"
    weights = path.with_suffix(".bin")
    return f"{path} and {weights.name}: {path.stat().st_size + weights.stat().st_size:,} bytes"


def _calibration(samples: torch.Tensor, dataset: str | None, description: ModelDescription) -> Iterator[np.ndarray]:
    if dataset is None:
        return iter([samples.contiguous().numpy()])
    folder = artefacts.data_folder(dataset)
    count = min(CALIBRATION_IMAGES, read_manifest(folder)["splits"]["train"]["count"])
    return calibration_batches(folder, count, description["normalisation"])


def _require_writable(path: Path, model: Path, file_format: Format) -> None:
    """Raise ParamsError (exit code 2) for a folder, the model itself or a file in a folder of the stages.

    Also for a wrong ending: by .xml, OpenVINO and `predict` know which files they read.
    """
    if (path.suffix == ".xml") != (file_format == "openvino"):
        cure = "name a file that ends in .xml" if file_format == "openvino" else "add --format openvino"
        raise ParamsError(f"--output: {path} and --format {file_format} do not fit; {cure}")
    for each in (path, path.with_suffix(".bin")) if file_format == "openvino" else (path,):
        if each.is_dir():
            raise ParamsError(f"--output: {each} is a folder; name the file to write")
        if each.exists() and model.exists() and each.samefile(model):
            raise ParamsError(f"--output: {each} is the model itself; name another file")
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


def _usual_place(model: Path, ending: str) -> Path:
    """exports/ plus the model's path below models/, or its name alone if it is elsewhere."""
    parts = model.with_name(model.stem + ending).parts
    below = parts[parts.index("models") + 1 :] if "models" in parts else parts[-1:]
    return EXPORTS.joinpath(*below)
