"""The teacher is frozen, in eval mode and without gradient; folding its batch norms changes nothing it says."""

from pathlib import Path

import pytest
import torch

from moonshine.distillation.attention_transfer import attention_map
from moonshine.distillation.teacher import Teacher
from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.features import FeatureTap
from moonshine.models.model_file import load_model, model_bytes, model_description
from moonshine.models.networks import initialise

MANIFEST = {
    "shape": [3, 32, 32],
    "encoding": "raw",
    "normalisation": {"mean": [0.5] * 3, "std": [0.25] * 3},
    "classes": [str(label) for label in range(10)],
}
ARCHITECTURES = {
    "resnet": {"arch": "resnet18", "channels": [8, 8, 16, 16], "stem": "3x3"},
    "wide resnet": {"arch": "wrn-16-1"},
    "cheap": {"arch": "wrn-16-1", "conv": "BG(2,M)"},
    "inside a block": {"arch": "wrn-16-1", "points": ["group1.0.conv1", "group2.0.bn2", "group3.1.conv2"]},
    "on a cheap convolution": {"arch": "wrn-16-1", "conv": "G(N)", "points": ["group1.0.conv1", "group2.0.conv1"]},
    "mobilenet": {"arch": "mobilenet_v2"},
}


def published(folder: Path, architecture: dict[str, object]) -> Path:
    """A model whose batch norms have seen data."""
    network = initialise({**architecture, "classes": 10, "in_channels": 3}, 0).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(16, 3, 32, 32))
    described = model_description("train/teacher/seed0", {**architecture, "classes": 10, "in_channels": 3}, MANIFEST)
    path = folder / "teacher.safetensors"
    path.write_bytes(model_bytes(network, described))
    return path


def teacher_of(path: Path, precision: torch.dtype = torch.float32) -> Teacher:
    return Teacher.load(path, "train/teacher/seed0", torch.device("cpu"), precision)[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_it_says_what_the_published_model_says_in_eval_mode(architecture: dict[str, object], tmp_path: Path) -> None:
    path = published(tmp_path, architecture)
    network, description = load_model(path)
    tap = FeatureTap(network, attention_layers_of(description["architecture"]), attention_map)
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        logits = network(images)
    said = teacher_of(path)(images)
    torch.testing.assert_close(said.logits, logits, rtol=1e-4, atol=1e-5)
    for map_, expected in zip(said.maps, tap.take(), strict=True):
        torch.testing.assert_close(map_, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [ARCHITECTURES["resnet"], ARCHITECTURES["inside a block"]], ids=str)
def test_compiled_it_says_the_same(architecture: dict[str, object], tmp_path: Path) -> None:
    path = published(tmp_path, architecture)
    compiled, _ = Teacher.load(path, "train/teacher/seed0", torch.device("cpu"), torch.float32, compiled=True)
    for images in (torch.randn(4, 3, 32, 32), torch.randn(3, 3, 32, 32)):
        said, expected = compiled(images), teacher_of(path)(images)
        assert not said.logits.is_inference()
        torch.testing.assert_close(said.logits, expected.logits, rtol=1e-4, atol=1e-5)
        for map_, plain in zip(said.maps, expected.maps, strict=True):
            torch.testing.assert_close(map_, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_its_convolutions_are_laid_out_once(tmp_path: Path) -> None:
    path = published(tmp_path, ARCHITECTURES["resnet"])
    compiled, _ = Teacher.load(path, "train/teacher/seed0", torch.device("cpu"), torch.float32, compiled=True)
    images = torch.randn(4, 3, 32, 32)
    first = compiled(images)
    with torch.no_grad():
        compiled.network.layer1[0].conv1.weight.zero_()  # of which the compiled network has a copy of its own
    assert torch.equal(compiled(images).logits, first.logits)


def test_it_is_frozen_in_eval_mode_and_without_gradient(tmp_path: Path) -> None:
    teacher = teacher_of(published(tmp_path, ARCHITECTURES["wide resnet"]))
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    images = torch.randn(4, 3, 32, 32, requires_grad=True)
    first, second = teacher(images), teacher(images)
    assert not any(module.training for module in teacher.network.modules())
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    for signal in (first.logits, *first.maps):
        assert not signal.requires_grad
        assert not signal.is_inference(), "students' backward passes may keep it"
    assert torch.equal(first.logits, second.logits), "eval mode: a batch leaves no trace"
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.network.state_dict().items())


def test_what_it_says_of_an_image_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    teacher = teacher_of(published(tmp_path, ARCHITECTURES["wide resnet"]))
    images = torch.randn(8, 3, 32, 32)
    torch.testing.assert_close(teacher(images).logits[:2], teacher(images[:2]).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_weights_cast_once_give_the_bytes_of_weights_cast_in_each_pass(
    architecture: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, images = published(tmp_path, architecture), torch.randn(4, 3, 32, 32)
    once = teacher_of(path, torch.bfloat16)
    assert {layer.weight.dtype for layer in once.network.modules() if isinstance(layer, torch.nn.Conv2d)} == {
        torch.bfloat16
    }
    monkeypatch.setattr("moonshine.distillation.teacher.cast_weights", lambda network, precision: None)
    each_time = teacher_of(path, torch.bfloat16)
    assert all(parameter.dtype == torch.float32 for parameter in each_time.network.parameters())
    cast, autocast = once(images), each_time(images)
    assert torch.equal(cast.logits, autocast.logits)
    for map_, expected in zip(cast.maps, autocast.maps, strict=True):
        assert torch.equal(map_, expected)
