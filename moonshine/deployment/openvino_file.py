"""A network as OpenVINO IR, checked against PyTorch: an .xml file of operations and a .bin file of weights."""

import copy
import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from moonshine.errors import CheckpointError, DataError, MachineError, first_line
from moonshine.export.onnx_file import check_logits, to_onnx
from moonshine.models.networks import without_wrappers
from moonshine.runtime.files import atomic_write

SECTION = "framework"
"""Where OpenVINO keeps the metadata of the ONNX file that it has converted, within the file's runtime information."""
WEIGHTS = "weights_sha256"
"""Its entry with the hash of the .bin file, because nothing else shows that a pair of files belongs together."""


def export_openvino(
    network: nn.Module,
    path: str | Path,
    images: torch.Tensor,
    *,
    metadata: Mapping[str, Any] | None = None,
    explanation: str = "",
) -> float:
    """Write a network as OpenVINO IR: `path`, which ends in .xml, and its weights next to it in a .bin file.

    Weights stay float32. The files are run in OpenVINO on the CPU, on the first of `images` alone and on all of them,
    and compared with PyTorch as `export_onnx` does. Each entry of `metadata`, and `explanation`, is in the file's
    runtime information: `model.get_rt_info(["framework", key])`. Returns the largest difference of a logit, relative to
    the largest logit. Raises ValueError for another ending, MachineError if OpenVINO is not installed, CheckpointError
    if it cannot convert the network or computes something else; nothing is written then.
    """
    path = Path(path)
    if path.suffix != ".xml":
        raise ValueError(f"path: {path} must end in .xml")
    import_openvino()  # before the work
    network, images = copy.deepcopy(without_wrappers(network)).cpu().float().eval(), images.detach().cpu().float()
    files = to_openvino(to_onnx(network, images[:2], metadata or {}, explanation), explanation, path)
    model = OpenVinoModel(*files)
    batches = images[:1], images if len(images) > 1 else images.expand(2, -1, -1, -1)
    difference = max(check_logits(model.run(each.numpy())[0], network, each, path) for each in batches)
    write_openvino(path, *files)
    return difference


def import_openvino() -> Any:
    """The module, without its telemetry: unless a user has opted out, that reports each import to Google Analytics.

    MachineError (exit code 5) if it is not installed.
    """
    silenced = sys.modules.setdefault("openvino_telemetry", None) is None  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        problem = "is not installed" if error.name == "openvino" else f"cannot be imported ({first_line(error)})"
        raise MachineError(f"openvino {problem}; pip install 'moonshine[openvino]'") from None
    finally:
        if silenced:
            del sys.modules["openvino_telemetry"]
    return openvino


def to_openvino(exported: bytes, explanation: str, path: Path) -> tuple[bytes, bytes]:
    """The content of the .xml and of the .bin file of an ONNX file, whose metadata OpenVINO keeps.

    CheckpointError (exit code 8), which names `path`, if OpenVINO cannot convert it.
    """
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder, "network.xml")
        weights = xml.with_suffix(".bin")
        try:
            # convert_model does the same for ONNX, but reports to Google Analytics
            model = openvino.Core().read_model(exported)
            model.set_rt_info(explanation, [SECTION, "explanation"])
            openvino.save_model(model, xml, compress_to_fp16=False)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: OpenVINO cannot convert this network ({_reason(error)})") from None
        model.set_rt_info(hashlib.sha256(weights.read_bytes()).hexdigest(), [SECTION, WEIGHTS])
        openvino.save_model(model, xml, compress_to_fp16=False)
        return xml.read_bytes(), weights.read_bytes()


def write_openvino(path: Path, xml: bytes, weights: bytes) -> None:
    """Write both files or, if one of them cannot be written, neither."""
    with atomic_write(path, len(xml)) as file, atomic_write(path.with_suffix(".bin"), len(weights)) as other:
        other.write(weights)
        file.write(xml)
        file.flush()
        os.fsync(file.fileno())  # so that no lack of space can stop it after the other is in place


class OpenVinoModel:
    """OpenVINO IR that runs on the CPU, in float32 and with as many threads as PyTorch has.

    Raises DataError (exit code 3), without a file's name, if the files are damaged or do not belong together.
    """

    def __init__(self, xml: bytes, weights: bytes):
        openvino = import_openvino()
        core = openvino.Core()
        try:
            model = core.read_model(xml, weights)
        except RuntimeError as error:
            raise DataError(f"not readable by OpenVINO ({_reason(error)})") from None
        entries = model.get_rt_info(SECTION).value if model.has_rt_info(SECTION) else {}
        self.metadata = {key: str(value.value if hasattr(value, "value") else value) for key, value in entries.items()}
        if self.metadata.pop(WEIGHTS, None) not in (None, hashlib.sha256(weights).hexdigest()):
            raise DataError("damaged, or its .bin file is of another export")
        properties = {
            # on processors with bfloat16, OpenVINO would round to that
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # or the threads of processes side by side would share a core
        }
        self._compiled = core.compile_model(model, "CPU", properties)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs of float32 images, (batch, channels, height, width), in their order."""
        return [np.array(each) for each in self._compiled([np.ascontiguousarray(images)]).to_tuple()]


class OpenVinoNetwork(nn.Module):
    """OpenVINO IR from `images` to `logits` in the place of a network: float32 tensors on the CPU."""

    def __init__(self, model: OpenVinoModel):
        super().__init__()
        self._model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._model.run(images.numpy())[0])


def _reason(error: Exception) -> str:
    """OpenVINO's messages begin with lines about its own source code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
