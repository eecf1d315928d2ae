"""Files for OpenVINO, and feature maps for detectors: made by the command line, run by the programs they are for."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

import moonshine
from benchmarks.separate_project import ROOT
from moonshine import cli
from moonshine.deployment import openvino_file
from moonshine.deployment.images import load_images
from moonshine.deployment.openvino_file import import_openvino, write_openvino
from moonshine.errors import CheckpointError, MoonshineError
from moonshine.export.onnx_file import to_onnx
from moonshine.models.model_file import load_model, model_bytes
from moonshine.models.networks import initialise
from tests.support.project import run_moonshine

SIZE = 12


def description(arch: str, size: int = SIZE) -> dict[str, Any]:
    return {
        "name": f"train/{arch}/seed0",
        "architecture": {"arch": arch, "classes": 10, "in_channels": 1},
        "input": [1, size, size],
        "preprocessing": {"resize": [size, size]},
        "normalisation": {"mean": [0.3], "std": [0.3]},
        "classes": [f'class "{number}" <é>' for number in range(10)],
    }


def write_model(path: Path, arch: str, size: int = SIZE) -> None:
    described = description(arch, size)
    path.write_bytes(model_bytes(initialise(described["architecture"], 0), described))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file, three images, and the model as OpenVINO IR."""
    path = tmp_path_factory.mktemp("formats")
    write_model(path / "it.safetensors", "wrn-10-1")
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), np.uint8)):
        Image.fromarray(pixels).save(path / f"{index}.png")
    images = [f"{index}.png" for index in range(3)]
    result = run_moonshine("export", "it.safetensors", "--format", "openvino", "--images", *images, cwd=path)
    total = sum((path / f"exports/it.{ending}").stat().st_size for ending in ("xml", "bin"))
    assert f"exports/it.xml and it.bin: {total:,} bytes, logits within " in result.stderr
    return path


def expected(folder: Path, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """The first images as input, and the network's logits."""
    network, described = load_model(folder / "it.safetensors")
    images = load_images([folder / f"{index}.png" for index in range(count)], described)
    with torch.inference_mode():
        return images, network(images)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_openvino_computes_the_same_logits(folder: Path, batch: int) -> None:
    images, logits = expected(folder, batch)
    openvino = import_openvino()
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(folder / "exports/it.xml", "CPU", properties)
    torch.testing.assert_close(torch.from_numpy(model(images.numpy())["logits"]), logits, rtol=1e-4, atol=1e-5)


def test_weights_stay_float32_and_the_description_comes_along(folder: Path) -> None:
    model = import_openvino().Core().read_model(folder / "exports/it.xml")
    types = {node.get_element_type().get_type_name() for node in model.get_ops() if node.get_type_name() == "Constant"}
    assert types <= {"f32", "i64"}
    assert (folder / "exports/it.bin").stat().st_size > 4 * 70_000
    for key, value in description("wrn-10-1").items():
        assert json.loads(model.get_rt_info(["framework", key]).value) == value
    assert json.loads(model.get_rt_info(["framework", "class_names"]).value)[9] == 'class "9" <é>'
    assert "resize the whole image to 12 x 12" in model.get_rt_info(["framework", "explanation"]).value
    assert str(folder).encode() not in (folder / "exports/it.xml").read_bytes()


def test_predict_says_the_same_from_openvinos_files(folder: Path) -> None:
    results = [
        run_moonshine("predict", model, "0.png", "2.png", cwd=folder).stdout
        for model in ("it.safetensors", "exports/it.xml")
    ]
    assert results[0] == results[1]
    assert 'class "' in results[0]


@pytest.mark.slow
def test_another_process_writes_the_same_files(folder: Path) -> None:
    arguments = ("export", "it.safetensors", "--format", "openvino", "--output", "again.xml", "--images")
    run_moonshine(*arguments, "1.png", cwd=folder, PYTHONHASHSEED="7", TMPDIR=str(folder))
    for ending in ("xml", "bin"):
        assert (folder / f"again.{ending}").read_bytes() == (folder / f"exports/it.{ending}").read_bytes()


def one_line(code: int, *arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(arguments) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda xml, weights: weights.unlink(), "it.bin: missing, it has the weights of it.xml"),
        (lambda xml, weights: weights.write_bytes(weights.read_bytes()[:-4]), "it.xml: not readable by OpenVINO ("),
        (
            lambda xml, weights: weights.write_bytes(b"\1" + weights.read_bytes()[1:]),
            "it.xml: damaged, or its .bin file is of another export",
        ),
        (lambda xml, weights: xml.write_text("<net"), "it.xml: not readable by OpenVINO ("),
        (lambda xml, weights: xml.unlink(), "it.xml: cannot be read (No such file or directory)"),
        (
            lambda xml, weights: xml.write_text(xml.read_text().replace("<normalisation ", "<other ")),
            "it.xml: not of `moonshine export`, its metadata lack normalisation",
        ),
    ],
)
def test_predict_names_what_is_wrong_with_openvinos_files(
    spoil: Callable[[Path, Path], object],
    reason: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for ending in ("xml", "bin"):
        Path(f"it.{ending}").write_bytes((folder / f"exports/it.{ending}").read_bytes())
    spoil(Path("it.xml"), Path("it.bin"))
    assert one_line(3, "predict", "it.xml", str(folder / "0.png"), capsys=capsys).startswith(reason)


def test_without_openvino_the_extra_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "openvino.py").write_text("raise ModuleNotFoundError(\"No module named 'openvino'\", name='openvino')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    line = "error: openvino is not installed; pip install 'moonshine[openvino]'\n"
    for arguments in (
        ("predict", "exports/it.xml", "0.png"),
        ("export", "it.safetensors", "--format", "openvino", "--output", "none.xml", "--images", "0.png"),
    ):
        result = run_moonshine(*arguments, cwd=folder, check=False, PYTHONPATH=path)
        assert (result.returncode, result.stderr) == (5, line)
    assert not list(folder.glob("none.*"))


def test_openvino_reports_nothing_to_its_authors(tmp_path: Path) -> None:
    """Its telemetry would leave a number of this user in the home folder before it sends anything."""
    code = (
        "from moonshine.deployment.openvino_file import import_openvino; import sys; import_openvino(); "
        "assert 'openvino' in sys.modules; assert 'openvino_telemetry' not in sys.modules"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "CI": ""}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(home.iterdir()) == []


@pytest.mark.slow
def test_a_conversion_that_differs_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if OpenVINO had converted another network."""
    network, _ = load_model(folder / "it.safetensors")
    network.get_parameter("fc.bias").data[3] += 0.01
    converted = openvino_file.to_openvino(to_onnx(network, torch.zeros(2, 1, SIZE, SIZE), {}, ""), "", Path("it"))
    monkeypatch.setattr(openvino_file, "to_openvino", lambda *arguments: converted)
    output = tmp_path / "out/it.xml"
    arguments = ("--format", "openvino", "--output", str(output), "--images", str(folder / "0.png"))
    line = one_line(8, "export", str(folder / "it.safetensors"), *arguments, capsys=capsys)
    assert line.startswith(f"{output}: the exported network's logits differ from PyTorch's by ")
    assert not output.parent.exists()


def test_both_files_are_written_or_neither(tmp_path: Path) -> None:
    (tmp_path / "it.bin").mkdir()
    with pytest.raises(MoonshineError, match=r"it\.bin"):
        write_openvino(tmp_path / "it.xml", b"operations", b"weights")
    assert [path.name for path in tmp_path.iterdir()] == ["it.bin"]
    write_openvino(tmp_path / "other.xml", b"operations", b"weights")
    assert (tmp_path / "other.bin").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--format", "openvino", "--output", "it.onnx"), "--output: it.onnx and --format openvino do not fit; name"),
        (("--output", "it.xml"), "--output: it.xml and --format onnx do not fit; add --format openvino"),
        (("--format", "openvino", "--output", "sub/it.xml"), "--output: sub/it.bin is a folder; name the file to wri"),
        (("--format", "onnx-int8", "--features"), "--features: feature maps are exported in float32 only; leave out "),
    ],
)
def test_what_does_not_fit_is_refused_at_once(
    arguments: tuple[str, ...],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub/it.bin").mkdir(parents=True)
    assert one_line(2, "export", "it.safetensors", *arguments, capsys=capsys).startswith(reason)


def groups(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """What a wide ResNet's three groups give, one after another."""
    with torch.inference_mode():
        features, maps = network.get_submodule("conv1")(images), []
        for name in ("group1", "group2", "group3"):
            features = network.get_submodule(name)(features)
            maps.append(features)
    return maps


@pytest.fixture(scope="module")
def features(folder: Path) -> Path:
    result = run_moonshine("export", "it.safetensors", "--features", "--images", "0.png", "1.png", cwd=folder)
    path = folder / "exports/it-features.onnx"
    assert f"exports/it-features.onnx: {path.stat().st_size:,} bytes, group1 (stride 1), group2 (" in result.stderr
    assert "for images of any size, within " in result.stderr
    return path


@pytest.mark.parametrize("size", [(1, 12, 12), (3, 40, 56), (2, 33, 127)])
def test_feature_maps_are_those_of_the_stages_at_any_size(
    folder: Path, features: Path, size: tuple[int, int, int]
) -> None:
    network, _ = load_model(folder / "it.safetensors")
    batch, height, width = size
    images = torch.randn(batch, 1, height, width, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(features)
    assert [output.name for output in session.get_outputs()] == ["group1", "group2", "group3"]
    for found, map in zip(session.run(None, {"images": images.numpy()}), groups(network, images)):
        torch.testing.assert_close(torch.from_numpy(found), map, rtol=1e-3, atol=1e-4)


def test_feature_maps_are_described(features: Path) -> None:
    model = onnxruntime.InferenceSession(features).get_modelmeta()
    assert json.loads(model.custom_metadata_map["features"]) == [
        {"name": "group1", "channels": 16, "stride": 1},
        {"name": "group2", "channels": 32, "stride": 2},
        {"name": "group3", "channels": 64, "stride": 4},
    ]
    assert json.loads(model.custom_metadata_map["normalisation"]) == {"mean": [0.3], "std": [0.3]}
    assert "(batch, 1, height, width), from grey pixels: divide by 255, subtract [0.3]" in model.description
    assert "`group3`: 64 channels, stride 4." in model.description


def test_predict_refuses_feature_maps(folder: Path, features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line(3, "predict", str(features), str(folder / "0.png"), capsys=capsys)
    assert line == f"{features}: gives feature maps, not classes; export the model without --features"


@pytest.mark.slow
def test_openvino_gives_the_same_feature_maps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_moonshine("export", "it.safetensors", "--features", "--format", "openvino", "--images", "0.png", cwd=folder)
    path = folder / "exports/it-features.xml"
    network, _ = load_model(folder / "it.safetensors")
    images = torch.randn(2, 1, 50, 30, generator=torch.Generator().manual_seed(0))
    found = import_openvino().Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images.numpy())
    for name, map in zip(("group1", "group2", "group3"), groups(network, images)):
        torch.testing.assert_close(torch.from_numpy(found[name]), map, rtol=1e-3, atol=1e-4)
    assert "gives feature maps, not classes" in one_line(3, "predict", str(path), str(folder / "0.png"), capsys=capsys)


def test_a_network_without_known_stages_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "it.safetensors", "mobilenet_v3_small", 32)
    model, output = str(tmp_path / "it.safetensors"), tmp_path / "it.onnx"
    arguments = ("--features", "--output", str(output), "--images", str(folder / "0.png"))
    line = one_line(2, "export", model, *arguments, capsys=capsys)
    assert line.startswith("--features: no stages of mobilenet_v3_small are known; name its layers in Python: ")
    assert not output.exists()


@pytest.mark.slow
def test_a_resnets_stages_have_strides_up_to_32(tmp_path: Path) -> None:
    network = initialise({"arch": "resnet18", "classes": 10, "in_channels": 3, "channels": [8, 8, 8, 8]}, 0)
    written = moonshine.export_features(network, tmp_path / "it.onnx", torch.rand(2, 3, 16, 16))
    assert [(each["name"], each["stride"]) for each in written["features"]] == [
        ("layer1", 4),
        ("layer2", 8),
        ("layer3", 16),
        ("layer4", 32),
    ]
    assert written["any_size"]
    maps = onnxruntime.InferenceSession(tmp_path / "it.onnx").run(
        None, {"images": np.zeros((3, 3, 96, 64), np.float32)}
    )
    assert [each.shape for each in maps] == [(3, 8, 24, 16), (3, 8, 12, 8), (3, 8, 6, 4), (3, 8, 3, 2)]


class Fixed(nn.Module):
    """Takes images of 8 x 8 only."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.bias = nn.Parameter(torch.ones(4, 4))
        self.second = nn.Conv2d(4, 4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(images) + self.bias)


def test_a_network_for_images_of_one_size_is_exported_for_that(tmp_path: Path) -> None:
    network, images = Fixed(), torch.rand(3, 3, 8, 8)
    written = moonshine.export_features(network, tmp_path / "it.onnx", images, layers=["first", "second"])
    assert written["features"][0] == {"name": "first", "channels": 4, "stride": 2}
    assert not written["any_size"]
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx")
    assert session.get_inputs()[0].shape[1:] == [3, 8, 8]
    _, second = session.run(None, {"images": images[:2].numpy()})
    torch.testing.assert_close(torch.from_numpy(second), network(images[:2]).detach(), rtol=1e-4, atol=1e-5)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (["0.weight"], 'layers: Sequential has no layer "0.weight"'),
        ([], "layers: no stages of Sequential are known; name the layers to export"),
        (None, "layers: no stages of Sequential are known; name the layers to export"),
        (["0", "0"], "layers: one is named twice"),
        (["1", "3"], "layers: the output of 3 is not (batch, channels, height, width)"),
    ],
)
def test_layers_that_give_no_feature_maps_are_refused(layers: list[str] | None, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        moonshine.export_features(small(), tmp_path / "it.onnx", torch.rand(2, 3, 8, 8), layers=layers)
    assert str(error.value).startswith(reason)
    assert list(tmp_path.iterdir()) == []


def test_a_map_that_a_later_layer_overwrites_is_not_written(tmp_path: Path) -> None:
    """torch.fx would pass on what the ReLU has left in the place of the convolution's output."""
    network = small()
    before = hashlib.sha256(repr(network.state_dict()).encode()).hexdigest()
    with pytest.raises(CheckpointError, match="the exported network's values of 0 differ from PyTorch's by"):
        moonshine.export_features(network, tmp_path / "it.onnx", torch.rand(2, 3, 8, 8), layers=["0", "1"])
    assert list(tmp_path.iterdir()) == []
    assert hashlib.sha256(repr(network.state_dict()).encode()).hexdigest() == before
    assert not any(module._forward_hooks for module in network.modules())
