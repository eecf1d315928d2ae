"""int8: the same bytes in every process, one scale per channel, and one line for what cannot be quantised."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from benchmarks.separate_project import ROOT
from moonshine.errors import CheckpointError, DataError
from moonshine.export.onnx_file import export_onnx, to_onnx
from moonshine.export.quantisation import quantise
from moonshine.export.session import open_session


def depthwise(largest: float = 1.0) -> nn.Module:
    """Separable convolutions; one depthwise channel has `largest` times the weights, but as much smaller inputs."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    with torch.no_grad():
        weights = dict(network.named_parameters())
        weights["0.weight"][0] /= largest
        weights["0.bias"][0] /= largest
        weights["3.weight"][0] *= largest
    return network.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def exported(network: nn.Module, images: torch.Tensor) -> bytes:
    return to_onnx(network, images[:2], {"name": "it"}, "how to use it")


def error(quantised: bytes, network: nn.Module, images: torch.Tensor) -> float:
    """The largest difference of a logit, relative to the largest logit."""
    (found,) = open_session(quantised).run(["logits"], {"images": images.numpy()})
    with torch.inference_mode():
        expected = network(images).numpy()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


PROGRAM = """
import sys, numpy as np, torch
from pathlib import Path
from moonshine.export.quantisation import quantise
torch.set_num_threads(int(sys.argv[3]))
calibration = np.load("images.npy")
Path(sys.argv[2]).write_bytes(quantise(Path(sys.argv[1]).read_bytes(), calibration.reshape(2, 32, 3, 16, 16)))
"""


def test_two_processes_write_the_same_bytes_and_leave_nothing(images: torch.Tensor, tmp_path: Path) -> None:
    """Whatever the order of Python's sets, the number of threads and the folder for temporary files are."""
    (tmp_path / "float.onnx").write_bytes(exported(depthwise(), images))
    np.save(tmp_path / "images.npy", images.numpy())
    for number in ("1", "2"):
        temporary = tmp_path / f"temporary{number}"
        temporary.mkdir()
        variables = {**os.environ, "PYTHONHASHSEED": number, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", PROGRAM, "float.onnx", f"{number}.onnx", number]
        subprocess.run(command, cwd=tmp_path, env=variables, check=True)
        assert {path.name for path in temporary.iterdir()} <= {".ses"}, "onnxruntime writes this when it is imported"
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"float.onnx", "images.npy", "1.onnx", "2.onnx", "temporary1", "temporary2"}


def test_weights_are_int8_and_the_metadata_stay(images: torch.Tensor) -> None:
    network = depthwise()
    model = onnx.load_model_from_string(quantise(exported(network, images), [images.numpy()]))
    weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.dims[1:]]
    assert [weight.dtype for weight in weights] == [np.dtype(np.int8)] * 4, "three convolutions and the classifier"
    assert {entry.key: entry.value for entry in model.metadata_props}["name"] == '"it"'
    assert model.doc_string == "how to use it"
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}, "folded before rounding"


def test_one_scale_per_channel_saves_depthwise_networks(images: torch.Tensor) -> None:
    network = depthwise(largest=400.0)
    float_network, calibration = exported(network, images), [images.numpy()]
    per_channel = error(quantise(float_network, calibration), network, images)
    per_tensor = error(quantise(float_network, calibration, per_channel=False), network, images)
    assert per_channel < 0.05 < 0.15 < per_tensor


def test_a_reduced_range_has_seven_bits(images: torch.Tensor) -> None:
    model = onnx.load_model_from_string(quantise(exported(depthwise(), images), [images.numpy()], reduce_range=True))
    weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.dims[1:]]
    assert max(np.abs(weight.astype(int)).max() for weight in weights) == 64


@pytest.mark.parametrize("calibration", [[], [np.zeros((0, 3, 16, 16), np.float32)]])
def test_calibration_without_images_is_refused(images: torch.Tensor, calibration: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match=r"^no images to calibrate with: the ranges of activations are unknown$"):
        quantise(exported(depthwise(), images), calibration)


def test_calibration_with_values_that_are_not_finite_is_refused(images: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"^an activation is not finite on the images for calibration$"):
        quantise(exported(depthwise(), images), [np.full((2, 3, 16, 16), np.inf, np.float32)])


def test_layers_that_stay_in_float_are_named(images: torch.Tensor) -> None:
    """onnxruntime itself would leave them as they are, without a word."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.LSTM(48, 5, batch_first=True)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.rows(images.permute(0, 2, 1, 3).flatten(2))[0].mean(1)

    with pytest.raises(CheckpointError, match=r"^onnxruntime cannot quantise these layers: LSTM .*$"):
        quantise(exported(Recurrent().eval(), images), [images.numpy()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_exported_as_float32(dtype: torch.dtype, images: torch.Tensor, tmp_path: Path) -> None:
    network = depthwise().to(dtype)
    export_onnx(network, tmp_path / "it.onnx", images.to(dtype))
    model = onnx.load_model(tmp_path / "it.onnx")
    assert {tensor.data_type for tensor in model.graph.initializer if tensor.dims[1:]} == {onnx.TensorProto.FLOAT}
    assert next(network.parameters()).dtype == dtype, "the network stays as it is"
