"""`moonshine export`: a published model as ONNX, checked against PyTorch on real images before it is written."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from moonshine.data.loading import open_images
from moonshine.deployment.class_names import class_names
from moonshine.deployment.images import load_images
from moonshine.deployment.model import logits_of, refuse_folder
from moonshine.errors import CheckpointError, DataError, ParamsError
from moonshine.images.store import read_manifest
from moonshine.models.model_file import load_model
from moonshine.project import artefacts
from moonshine.project.records import ModelDescription
from moonshine.runtime.files import sha256, write_bytes
from moonshine.runtime.progress import say

TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit."""
ROUNDING = 16
"""Or as many times what rounding to float32 changes in PyTorch itself, where that is more: deep networks amplify it."""
SAMPLES = 64
ROUNDED = 16
"""Of the samples, those that rounding is measured on, in float64, which is slow."""
EXPORTS = Path("exports")
OF_STAGES = (Path("models"), Path("data"))
"""Folders in which only stages write."""


def export(model: Path, output: Path | None, images: Sequence[Path], dataset: str | None) -> None:
    """Write `output`, by default exports/<model>.onnx, with a batch of any size and the description as metadata.

    It is compared with PyTorch on `images`, or without any on the first validation images of the prepared `dataset`.
    Raises ParamsError (exit code 2) where no file must be written there or the model is a folder, DataError (3) where
    there are no images that the model was made for, CheckpointError (8) where the exported network's logits differ, as
    `check` says it: nothing is written then.
    """
    refuse_folder(model)
    path = output or _usual_place(model)
    _require_writable(path, model)
    network, description = load_model(model)
    samples = load_images(images, description) if images else _validation_images(dataset, model, description)
    logits_of(network, samples[:1], model)  # of a network that cannot run, the exporter says nothing that helps
    names = class_names(description["classes"])
    exported = to_onnx(network, samples[:2], {**description, "class_names": names, "source_sha256": sha256(model)})
    difference = check(exported, network, samples, model)
    write_bytes(path, exported)
    say(f"{path}: {len(exported):,} bytes, logits within {difference:.1e} of PyTorch's on {len(samples)} images")


def _require_writable(path: Path, model: Path) -> None:
    """Raise ParamsError (exit code 2) for a folder, and for what the pipeline or a user would lose."""
    if path.is_dir():
        raise ParamsError(f"--output: {path} is a folder; name the file to write")
    if path.exists() and model.exists() and path.samefile(model):
        raise ParamsError(f"--output: {path} is the model itself; name another file")
    folder = path.parent.resolve()  # the file itself may be a link to DVC's cache
    for kept in OF_STAGES:
        if folder.is_relative_to(kept.resolve()):
            raise ParamsError(f"--output: {path} is in {kept}/, where only stages write; name a file elsewhere")


def to_onnx(network: nn.Module, examples: torch.Tensor, description: Mapping[str, Any]) -> bytes:
    """The network from `images` to `logits`; each entry of the description is an entry of the metadata, as JSON."""
    two = examples if len(examples) > 1 else examples.expand(2, -1, -1, -1)  # a batch of one would fix the size
    program = torch.onnx.export(
        network,
        (two,),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # the exporter notes stack traces with this machine's paths
    entries = {key: json.dumps(value) for key, value in sorted(description.items())}
    onnx.helper.set_model_props(proto, entries)
    proto.doc_string = _explanation(description)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def check(exported: bytes, network: nn.Module, samples: torch.Tensor, model: Path) -> float:
    """The largest difference of a logit between onnxruntime and PyTorch, relative to the largest logit.

    CheckpointError (exit code 8) where it is above TOLERANCE and above ROUNDING times PyTorch's own error, or where an
    image gets another class although its logits are further apart than that error explains.
    """
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"images": samples.numpy()})
    expected = logits_of(network, samples, model).numpy()
    scale = float(np.abs(expected).max()) or 1.0
    difference = float(np.abs(found - expected).max()) / scale
    rounding = ROUNDING * _rounding(network, samples[:ROUNDED], expected[:ROUNDED], model) / scale
    if not difference <= max(TOLERANCE, rounding):  # NaN as well
        raise CheckpointError(
            f"{model}: the exported network's logits differ from PyTorch's by {difference:.1e} of the largest, more "
            f"than {max(TOLERANCE, rounding):.0e}; nothing was written"
        )
    ours, theirs = expected.argmax(1)[:, None], found.argmax(1)[:, None]
    margins = np.take_along_axis(expected, ours, 1) - np.take_along_axis(expected, theirs, 1)
    if (margins / scale > rounding).any():
        raise CheckpointError(f"{model}: the exported network gives an image another class; nothing was written")
    return difference


def _rounding(network: nn.Module, samples: torch.Tensor, logits: np.ndarray, model: Path) -> float:
    """The largest error of PyTorch's float32 logits, by the same network in float64."""
    exact = logits_of(copy.deepcopy(network).double(), samples.double(), model).numpy()
    return float(np.abs(logits - exact).max())


def _validation_images(dataset: str | None, model: Path, description: ModelDescription) -> torch.Tensor:
    """The first of a prepared data set, which has to be of the model's kind."""
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
    """exports/ with the path that the model has below models/; elsewhere its name alone."""
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
    mean, std = description["normalisation"]["mean"], description["normalisation"]["std"]
    return (
        f"Input `images`: float32 (batch, {channels}, {height}, {width}), from {'RGB' if channels == 3 else 'grey'} "
        f"pixels: {resize} (bilinear, antialiased), divide by 255, subtract {mean}, divide by {std} (by channel). "
        f"Output `logits`: float32 (batch, {len(description['classes'])}), one for each of the metadata's classes."
    )
