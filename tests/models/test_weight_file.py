"""Weights are read from files as people have them: wrapped, prefixed, in other formats and precisions, or refused."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from moonshine.errors import CheckpointError, DataError, SecurityError
from moonshine.models.networks import initialise
from moonshine.models.weight_file import all_but_the_head, head_of, read_state, same_tensors, whole_network
from moonshine.project.records import Architecture

ARCHITECTURE: Architecture = {
    "arch": "resnet18",
    "stem": "3x3",
    "channels": [4, 4, 8, 8],
    "classes": 10,
    "in_channels": 1,
}
NETWORK = initialise(ARCHITECTURE, 0)
STATE = NETWORK.state_dict()


class LightningLike(nn.Module):
    """A network as an attribute of the module that trains it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model


def training(network: nn.Module) -> dict[str, Any]:
    """The rest of a checkpoint, as a training writes it after a step."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.randn(2, 1, 12, 12)).sum().backward()
    optimizer.step()
    return {"optimizer": optimizer.state_dict(), "epoch": 89, "args": argparse.Namespace(lr=0.1, model="resnet18")}


COMPILED: Any = torch.compile(NETWORK)
AS_PEOPLE_HAVE_THEM: dict[str, tuple[Callable[[], Any], str]] = {
    "plain": (lambda: STATE, ""),
    "DataParallel": (lambda: nn.DataParallel(NETWORK).state_dict(), 'removed "module." before all names'),
    "torch.compile": (lambda: COMPILED.state_dict(), 'removed "_orig_mod." before all names'),
    "both": (lambda: nn.DataParallel(COMPILED).state_dict(), 'removed "module._orig_mod." before all names'),
    "Lightning": (
        lambda: {"state_dict": LightningLike(COMPILED).state_dict(), "epoch": 3, "hyper_parameters": {"lr": 0.1}},
        'took the entry state_dict, not epoch, hyper_parameters; removed "model._orig_mod." before all names',
    ),
    "timm": (
        lambda: {
            **training(initialise(ARCHITECTURE, 1)),
            "state_dict": STATE,
            "state_dict_ema": initialise(ARCHITECTURE, 2).state_dict(),
        },
        "took the entry state_dict, not args, epoch, optimizer, state_dict_ema",
    ),
    "torchvision": (
        lambda: {
            **training(initialise(ARCHITECTURE, 1)),
            "model": nn.DataParallel(NETWORK).state_dict(),
            "model_ema": initialise(ARCHITECTURE, 2).state_dict(),
        },
        'took the entry model, not args, epoch, model_ema, optimizer; removed "module." before all names',
    ),
    "PyTorch's tutorial": (
        lambda: {"epoch": 5, "model_state_dict": STATE, "loss": 0.4},
        "took the entry model_state_dict, not epoch, loss",
    ),
}


@pytest.mark.parametrize(("make", "said"), AS_PEOPLE_HAVE_THEM.values(), ids=AS_PEOPLE_HAVE_THEM)
def test_the_network_is_found_in_files_as_programs_write_them(
    make: Callable[[], Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.pth"
    torch.save(make(), path)
    state = whole_network(read_state(path), ARCHITECTURE, path)
    assert capsys.readouterr().err == (f"{path}: {said}\n" if said else "")
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("name", ["net.safetensors", "net", "net.pth"])
def test_safetensors_are_told_by_their_content(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    save_file(nn.DataParallel(initialise(ARCHITECTURE, 0).half()).state_dict(), path)
    state = whole_network(read_state(path), ARCHITECTURE, path)
    assert state["conv1.weight"].dtype == torch.float32
    for key, tensor in STATE.items():
        assert torch.equal(state[key], tensor.half().float() if tensor.is_floating_point() else tensor)


def test_a_damaged_safetensors_file_is_named_as_one(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"net.safetensors: not a readable safetensors file"):
        read_state(path)


def test_code_among_a_trainings_options_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    for name, options in (("options", argparse.Namespace(lr=Payload())), ("instead", Payload())):
        torch.save({"state_dict": STATE, "args": options}, tmp_path / name)
        with pytest.raises(SecurityError, match="was not loaded"):
            read_state(tmp_path / name)
    assert not marker.exists()


def test_a_checkpoint_without_weights_is_refused_with_its_entries(tmp_path: Path) -> None:
    torch.save({"net": STATE, "epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"alone or as state_dict or model or .*; its entries are net, epoch$"):
        read_state(tmp_path / "net.pth")


def with_shape(name: str, *shape: int) -> dict[str, torch.Tensor]:
    return {**STATE, name: torch.zeros(shape)}


CAUSES: dict[str, tuple[Callable[[], dict[str, torch.Tensor]], str]] = {
    "a prefix": (
        lambda: {f"backbone.{name}": tensor for name, tensor in STATE.items()},
        'the network\'s names begin with "backbone." there: save only that part, without "backbone."',
    ),
    "a prefix beside other weights": (
        lambda: {**{f"model.{name}": tensor for name, tensor in STATE.items()}, "loss.weight": torch.ones(10)},
        'the network\'s names begin with "model." there: save only that part, without "model."',
    ),
    "a head of another size": (
        lambda: {**with_shape("fc.weight", 1000, 8), "fc.bias": torch.zeros(1000)},
        "fc.weight is for 1000 classes, the network has 10: pin a checkpoint of these classes, begin a training with "
        "it by `init`, or name it in `fetch_teacher`, classes: 1000",
    ),
    "colours": (
        lambda: with_shape("conv1.weight", 4, 3, 3, 3),
        "conv1.weight is for 3 channels, the images have 1",
    ),
    "another architecture": (
        lambda: initialise({**ARCHITECTURE, "arch": "resnet34"}, 0).state_dict(),
        "is it of another architecture than resnet18, or of another conv, channels or stem?",
    ),
}


@pytest.mark.parametrize(("make", "cause"), CAUSES.values(), ids=CAUSES)
def test_what_does_not_fit_is_named_with_its_likely_cause(
    make: Callable[[], dict[str, torch.Tensor]], cause: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    torch.save(make(), path)
    with pytest.raises(CheckpointError) as error:
        whole_network(read_state(path), ARCHITECTURE, path)
    assert str(error.value).startswith(f"{path}: does not fit the network: ")
    assert str(error.value).endswith(f"; {cause}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arch", "head"),
    [
        ("resnet18", {"fc.weight", "fc.bias"}),
        ("vgg11", {"classifier.6.weight", "classifier.6.bias"}),
        ("squeezenet1_1", {"classifier.1.weight", "classifier.1.bias"}),
        ("regnet_y_400mf", {"fc.weight", "fc.bias"}),
        ("wrn-10-1", {"fc.weight", "fc.bias"}),
    ],
)
def test_the_head_is_what_depends_on_the_number_of_classes(arch: str, head: set[str]) -> None:
    assert head_of({"arch": arch, "classes": 10, "in_channels": 3}) == head


@pytest.mark.parametrize("classes", [3, 10, None])
def test_all_but_the_head_is_taken_whatever_head_the_file_has(classes: int | None) -> None:
    state = {name: tensor for name, tensor in STATE.items() if not name.startswith("fc.")}
    if classes:
        state |= {"fc.weight": torch.zeros(classes, 8), "fc.bias": torch.zeros(classes)}
    taken = all_but_the_head(state, ARCHITECTURE, Path("net.pth"))
    assert taken.keys() == STATE.keys() - {"fc.weight", "fc.bias"}


def test_a_deeper_networks_file_is_not_taken_in_part() -> None:
    """Its first blocks would fit."""
    deeper = initialise({**ARCHITECTURE, "arch": "resnet34"}, 0).state_dict()
    assert {name for name in STATE if name in deeper} == STATE.keys()
    with pytest.raises(CheckpointError, match=r"layer1\.2\.bn1\.bias is not in the network"):
        all_but_the_head(deeper, ARCHITECTURE, Path("net.pth"))


def test_published_weights_with_auxiliary_heads_fit() -> None:
    """As torchvision's own files of these networks."""
    from torchvision.models import googlenet

    whole = googlenet(weights=None, aux_logits=True, init_weights=False).state_dict()
    architecture: Architecture = {"arch": "googlenet", "classes": 10, "in_channels": 3}
    taken = all_but_the_head(whole, architecture, Path("net.pth"))
    assert taken.keys() == initialise(architecture, 0).state_dict().keys() - {"fc.weight", "fc.bias"}


def test_of_a_teacher_everything_but_what_was_replaced_fits() -> None:
    cheap = initialise({**ARCHITECTURE, "conv": "G(N)"}, 0).state_dict()
    taken = same_tensors(STATE, {**ARCHITECTURE, "conv": "G(N)"})
    assert taken.keys() == STATE.keys() & cheap.keys()
    assert {"conv1.weight", "fc.weight", "layer1.0.bn1.weight"} <= taken.keys()
    assert not [name for name in taken if name.startswith("layer") and name.endswith("conv1.weight")]


@pytest.mark.parametrize("classes", [7, 10])
def test_counters_and_a_bias_of_the_classes_are_no_start(classes: int) -> None:
    assert same_tensors(STATE, {"arch": "wrn-10-1", "classes": classes, "in_channels": 1}) == {}
    other: Architecture = {**ARCHITECTURE, "channels": [5, 6, 7, 9], "classes": classes}
    assert same_tensors(STATE, other) == {}
