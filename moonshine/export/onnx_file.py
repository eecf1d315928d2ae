"""A network as ONNX, checked against PyTorch before it is written."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from moonshine.errors import CheckpointError
from moonshine.export.logits import logits_of
from moonshine.models.networks import without_wrappers
from moonshine.runtime.files import write_bytes

TOLERANCE = 1e-4
"""Largest allowed difference of a logit, relative to the largest logit."""
ROUNDING = 16
"""Or this many times PyTorch's own float32 rounding error, if that is more: deep networks amplify it."""
ROUNDED = 16
"""Number of images on which rounding is measured, in float64, which is slow."""


def export_onnx(
    network: nn.Module,
    path: str | Path,
    images: torch.Tensor,
    *,
    metadata: Mapping[str, Any] | None = None,
    explanation: str = "",
) -> float:
    """Write a network as ONNX from `images` to `logits`, in float32 and eval mode, with a batch of any size.

    It is run in onnxruntime on `images`, float (batch, channels, height, width), and compared with PyTorch. Each entry
    of `metadata` becomes an entry of the file's metadata, as JSON; `explanation` its doc string. The network stays as
    it is. Returns the largest difference of a logit, relative to the largest logit. Raises CheckpointError if that is
    above TOLERANCE and above ROUNDING times PyTorch's own error, or if an image gets another class although its logits
    are further apart than that error explains; nothing is written then.
    """
    network, images = copy.deepcopy(without_wrappers(network)).cpu().float().eval(), images.detach().cpu().float()
    exported = to_onnx(network, images[:2], metadata or {}, explanation)
    difference = check_onnx(exported, network, images, Path(path))
    write_bytes(Path(path), exported)
    return difference


def to_onnx(
    network: nn.Module,
    examples: torch.Tensor,
    metadata: Mapping[str, Any],
    explanation: str,
    *,
    outputs: Sequence[str] = ("logits",),
    sizes: Mapping[int, torch.export.Dim] = MappingProxyType({}),
) -> bytes:
    """The network as ONNX, from `images` to its `outputs`, with a batch of any size.

    `sizes` are other axes of the images, by index, that may be of any size as well.
    """
    import onnx  # not needed just to import all names of moonshine

    two = examples if len(examples) > 1 else examples.expand(2, -1, -1, -1)  # a batch of one would fix the size
    program = torch.onnx.export(
        network,
        (two,),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=list(outputs),
        dynamic_shapes=({0: torch.export.Dim("batch"), **sizes},),
    )
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # the exporter notes stack traces with this machine's paths
    entries = {key: json.dumps(value) for key, value in sorted(metadata.items())}
    onnx.helper.set_model_props(proto, entries)
    proto.doc_string = explanation
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def check_onnx(exported: bytes, network: nn.Module, images: torch.Tensor, path: Path) -> float:
    """`check_logits` of what onnxruntime computes."""
    from moonshine.export.session import open_session

    (found,) = open_session(exported).run(["logits"], {"images": images.numpy()})
    return check_logits(found, network, images, path)


def check_logits(found: np.ndarray, network: nn.Module, images: torch.Tensor, path: Path) -> float:
    """The largest difference of an exported network's logits from PyTorch's, relative to the largest logit.

    CheckpointError (exit code 8) if it is above TOLERANCE and above ROUNDING times PyTorch's own error, or if an
    image gets another class although its logits are further apart than that error explains.
    """
    expected = logits_of(network, images, path).numpy()
    rounding = _rounding(network, images[:ROUNDED], expected[:ROUNDED], path)
    difference = require_close(found, expected, rounding, "logits", path)
    ours, theirs = expected.argmax(1)[:, None], found.argmax(1)[:, None]
    margins = np.take_along_axis(expected, ours, 1) - np.take_along_axis(expected, theirs, 1)
    if (margins > ROUNDING * rounding).any():
        raise CheckpointError(f"{path}: the exported network gives an image another class; nothing was written")
    return difference


def require_close(found: np.ndarray, expected: np.ndarray, rounding: float, what: str, path: Path) -> float:
    """The largest difference of an output, relative to the largest value; `rounding` is PyTorch's own error.

    CheckpointError (exit code 8) if it is above TOLERANCE and above ROUNDING times that error.
    """
    scale = float(np.abs(expected).max()) or 1.0
    difference = float(np.abs(found - expected).max()) / scale
    bound = max(TOLERANCE, ROUNDING * rounding / scale)
    if not difference <= bound:  # NaN as well
        raise CheckpointError(
            f"{path}: the exported network's {what} differ from PyTorch's by {difference:.1e} of the largest, more "
            f"than {bound:.0e}; nothing was written"
        )
    return difference


def _rounding(network: nn.Module, images: torch.Tensor, logits: np.ndarray, path: Path) -> float:
    """The largest error of PyTorch's float32 logits, compared with the same network in float64.

    A network that casts to float32 itself cannot run that way; then only TOLERANCE counts.
    """
    try:
        exact = logits_of(copy.deepcopy(network).double(), images.double(), path).numpy()
    except CheckpointError:
        return TOLERANCE * float(np.abs(logits).max()) / ROUNDING
    return float(np.abs(logits - exact).max())
