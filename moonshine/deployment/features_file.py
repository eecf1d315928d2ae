"""The feature maps of a network's stages as ONNX or OpenVINO IR, for detectors and the like."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import interpolate
from torchvision.models.feature_extraction import create_feature_extractor

from moonshine.deployment.openvino_file import OpenVinoModel, import_openvino, to_openvino, write_openvino
from moonshine.errors import CheckpointError, DataError, first_line
from moonshine.export.onnx_file import ROUNDED, ROUNDING, TOLERANCE, require_close, to_onnx
from moonshine.models.attention_layers import attention_layers
from moonshine.models.networks import without_wrappers
from moonshine.runtime.files import write_bytes
from moonshine.runtime.suggest import suggest_path

SMALLEST = 64
"""Height and width from which the exporter takes sizes to be free: maps of one pixel are a special case to it."""
ANY_SIZE = {axis: torch.export.Dim(name, min=SMALLEST) for axis, name in ((2, "height"), (3, "width"))}
PROBES = (256, 512)
"""Heights and widths from which strides are computed, without running the network."""


class Feature(TypedDict):
    """An output of an exported file; pixels of the image per pixel of the map are its stride."""

    name: str
    channels: int
    stride: int


class Exported(TypedDict):
    """What `export_features` has written; the difference is relative to the largest value of its output."""

    features: list[Feature]
    any_size: bool
    difference: float


def export_features(
    network: nn.Module,
    path: str | Path,
    images: torch.Tensor,
    *,
    layers: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    explanation: str = "",
) -> Exported:
    """Write a network up to the last of `layers` as ONNX, or as OpenVINO IR if `path` ends in .xml, in float32.

    The outputs are the layers', under their paths, each float32 (batch, channels, height, width); by default the ends
    of the stages that `attention_layers` finds. `images`, (batch, channels, height, width), may be of any height and
    width in the file if the network allows it. It is run on the first of `images`, on all of them and, in that case, on
    larger ones with other proportions, and compared with the layers of the network in PyTorch. `metadata` and
    `explanation` are as for `export_onnx`; the entry "features" has each output's name, channels and stride.

    Raises ValueError for layers that cannot be found or have no such outputs, or if torch.fx cannot cut the network
    there, MachineError without OpenVINO, CheckpointError if the file computes something else; nothing is written then.
    """
    path = Path(path)
    if path.suffix == ".xml":
        import_openvino()  # before the work
    network, images = copy.deepcopy(without_wrappers(network)).cpu().float().eval(), images.detach().cpu().float()
    chosen = _layers(network, layers)
    larger = _larger(images[:2])
    any_size = _runs(network, chosen, larger)
    features = _features(network, chosen, images, any_size)
    backbone = _cut(network, chosen)
    entries = {**(metadata or {}), "features": features}
    words = f"{explanation} {_in_words(features)}".strip()
    exported = None
    if any_size:
        try:
            exported = to_onnx(backbone, larger, entries, words, outputs=chosen, sizes=ANY_SIZE)
        except torch.onnx.OnnxExporterError:
            any_size = False  # some of its operations depend on the size
    if exported is None:
        exported = to_onnx(backbone, images[:2], entries, words, outputs=chosen)
    batches = [images[:1], images if len(images) > 1 else images.expand(2, -1, -1, -1), *([larger] if any_size else [])]
    if path.suffix == ".xml":
        files = to_openvino(exported, words, path)
        difference = _check(OpenVinoModel(*files).run, network, chosen, batches, path)
        write_openvino(path, *files)
    else:
        difference = _check(_in_onnxruntime(exported, chosen), network, chosen, batches, path)
        write_bytes(path, exported)
    return {"features": features, "any_size": any_size, "difference": difference}


def _layers(network: nn.Module, named: Sequence[str] | None) -> tuple[str, ...]:
    chosen = attention_layers(network) if named is None else tuple(named)
    if not chosen:
        raise ValueError(f"layers: no stages of {type(network).__name__} are known; name the layers to export")
    paths = [path for path, _ in network.named_modules() if path]
    if unknown := [path for path in chosen if path not in paths]:
        raise ValueError(
            f'layers: {type(network).__name__} has no layer "{unknown[0]}"{suggest_path(unknown[0], paths)}'
        )
    if len(set(chosen)) < len(chosen):
        raise ValueError("layers: one is named twice")
    return chosen


def _larger(images: torch.Tensor) -> torch.Tensor:
    """Two images of at least SMALLEST pixels a side, wider than the given ones."""
    height, width = images.shape[2:]
    times = max(-(-SMALLEST // side) for side in (height, width))
    size = (times * height, (times + 1) * width)
    return interpolate(images.expand(2, -1, -1, -1), size, mode="bilinear", align_corners=False)


class _Done(Exception):
    """All layers have run; the rest of the network might not take images of this size."""


def _outputs(network: nn.Module, layers: Sequence[str], images: torch.Tensor) -> list[torch.Tensor]:
    """What these layers give, as it was before a later layer overwrote it."""
    found: dict[str, torch.Tensor] = {}

    def keeper(path: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            if not isinstance(output, torch.Tensor) or output.dim() != 4:
                raise ValueError(f"layers: the output of {path} is not (batch, channels, height, width)")
            found.setdefault(path, output.clone())
            if len(found) == len(layers):
                raise _Done

        return keep

    with _hooks(network, {path: keeper(path) for path in layers}):
        try:
            with torch.inference_mode():
                network(images)
        except _Done:
            pass
    if missing := [path for path in layers if path not in found]:
        raise ValueError(f"layers: {missing[0]} does not run")
    return [found[path] for path in layers]


@contextmanager
def _hooks(network: nn.Module, hooks: Mapping[str, Callable[..., None]]) -> Iterator[None]:
    handles = [network.get_submodule(path).register_forward_hook(hook) for path, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _runs(network: nn.Module, layers: Sequence[str], images: torch.Tensor) -> bool:
    """Whether the network takes images of this size."""
    try:
        _outputs(network, layers, images)
    except (RuntimeError, AssertionError):
        return False
    return True


def _features(network: nn.Module, layers: Sequence[str], images: torch.Tensor, any_size: bool) -> list[Feature]:
    """Names, channels and strides: of a free size, how much larger the image must be for one more pixel of the map."""
    channels, height = images.shape[1:3]
    if not any_size:
        maps = _outputs(network, layers, images[:1])
        return [_feature(path, map.shape[1], height / map.shape[2]) for path, map in zip(layers, maps)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        small, large = (_outputs(network, layers, torch.empty(1, channels, side, side)) for side in PROBES)
    more = PROBES[1] - PROBES[0]
    return [
        _feature(path, low.shape[1], more / max(high.shape[2] - low.shape[2], 1))
        for path, low, high in zip(layers, small, large)
    ]


def _feature(path: str, channels: int, stride: float) -> Feature:
    return {"name": path, "channels": channels, "stride": round(stride)}


def _cut(network: nn.Module, layers: Sequence[str]) -> nn.Module:
    try:
        return create_feature_extractor(network, {path: path for path in layers}, suppress_diff_warning=True).eval()
    except Exception as error:  # noqa: BLE001 (torch.fx passes on whatever a network raises that cannot be traced)
        raise ValueError(f"layers: torch.fx cannot cut {type(network).__name__} there ({first_line(error)})") from None


def _in_words(features: Sequence[Feature]) -> str:
    maps = "; ".join(f"`{each['name']}`: {each['channels']} channels, stride {each['stride']}" for each in features)
    return f"Outputs: float32 (batch, channels, height / stride, width / stride); {maps}."


def _in_onnxruntime(exported: bytes, layers: Sequence[str]) -> Callable[[np.ndarray], list[np.ndarray]]:
    from moonshine.export.session import open_session

    session = open_session(exported)
    return lambda images: session.run(list(layers), {"images": np.ascontiguousarray(images)})


def _check(
    run: Callable[[np.ndarray], list[np.ndarray]],
    network: nn.Module,
    layers: Sequence[str],
    batches: Sequence[torch.Tensor],
    path: Path,
) -> float:
    """The largest difference from PyTorch, relative to the largest value of the output.

    CheckpointError (exit code 8) if the shapes differ or `require_close` refuses an output.
    """
    differences = []
    for images in batches:
        maps = [each.numpy() for each in _outputs(network, layers, images)]
        errors = _rounding_errors(network, layers, images[:ROUNDED], maps)
        for name, found, expected, rounding in zip(layers, run(images.numpy()), maps, errors):
            if not np.isfinite(expected).all():
                raise DataError(f"{path}: {name} is not finite, so the network's weights are unusable")
            if found.shape != expected.shape:
                raise CheckpointError(
                    f"{path}: the exported network's {name} is {list(found.shape)}, PyTorch's {list(expected.shape)}; "
                    "nothing was written"
                )
            differences.append(require_close(found, expected, rounding, f"values of {name}", path))
    return max(differences)


def _rounding_errors(
    network: nn.Module, layers: Sequence[str], images: torch.Tensor, maps: Sequence[np.ndarray]
) -> list[float]:
    """PyTorch's largest errors in float32, compared with the same network in float64, if it can run that way."""
    try:
        exact = _outputs(copy.deepcopy(network).double(), layers, images.double())
    except RuntimeError:
        return [TOLERANCE * float(np.abs(each).max()) / ROUNDING for each in maps]
    return [float(np.abs(each[: len(images)] - other.numpy()).max()) for each, other in zip(maps, exact)]
