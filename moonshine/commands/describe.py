"""`moonshine describe`: what networks cost, and what is substituted in them, without data or weights."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import pandas as pd
from pydantic import ValidationError
from torch import nn

from moonshine.checks.networks import check_networks
from moonshine.costs.counts import Cost, module_costs
from moonshine.costs.experiment import network_costs
from moonshine.errors import ParamsError
from moonshine.models.architecture import architecture_of
from moonshine.models.convolutions import reasons_to_keep
from moonshine.models.names import wide_resnet_shape
from moonshine.models.networks import build_network, usual_block
from moonshine.models.residual_blocks import residual_blocks
from moonshine.params import Network, Params
from moonshine.project.records import Architecture
from moonshine.runtime.suggest import suggest

IMAGENET_SIDE, IMAGENET_CLASSES = 224, 1000
PER_BLOCK = "per block"
"""Stands for the convolution of networks that have one for each block."""


def describe_architecture(arch: str, conv: str | None) -> None:
    """Print the cost of one architecture on ImageNet, and, with a convolution, what it replaces."""
    try:
        network = Network(arch=arch, conv=conv)
    except ValidationError as error:
        raise ParamsError(str(error.errors()[0]["ctx"]["error"])) from None
    _print_network(network, IMAGENET_CLASSES, 3, IMAGENET_SIDE)


def describe_network(params: Params, name: str) -> None:
    """Print the cost of one network of an experiment, and what is substituted in it.

    Like `describe_experiment`, raises ParamsError (exit code 2) if a network cannot be built or run.
    """
    if name not in params.networks:
        raise ParamsError(f'unknown network "{name}"{suggest(name, params.networks)}')
    check_networks(params, [name])
    classes = params.architecture(name)["classes"]
    _print_network(params.networks[name], classes, params.dataset.channels, params.dataset.size)


def describe_experiment(params: Params) -> None:
    """Print the cost of every network of an experiment, for its images."""
    costs = network_costs(params, params.networks)
    _print_images(params.dataset.classes, params.dataset.channels, params.dataset.size)
    own = {name: checkpoint.classes for name, checkpoint in params.fetch_teacher.items()}
    lines = [
        {
            "Network": f"{name}, {own[name]} classes" if name in own else name,
            "Arch": network.arch,
            "Conv": PER_BLOCK if network.convs else network.conv or "S",
            **_counts(costs[name]),
        }
        for name, network in params.networks.items()
    ]
    _print_table(lines, numbers=4)
    if lists := {name: network for name, network in params.networks.items() if network.convs}:
        print()
        _print_table(
            [
                {"Network": name, "Layer": layer, "Convs of its blocks": convs}
                for name, network in lists.items()
                for layer, convs in _convs_of_layers(params.architecture(name))
            ],
            numbers=0,
        )


def _print_network(network: Network, classes: int, channels: int, side: int) -> None:
    """The totals, then each layer that is substituted, then each that is not, and why."""
    conv = network.conv or "S"
    block = None
    if wide_resnet_shape(network.arch) and not network.convs:
        block = network.block or usual_block(conv)
    described = architecture_of(network.model_copy(update={"block": block}), classes, channels)
    plain: Architecture = {**described, "conv": "S"}
    plain.pop("convs", None)
    shape = (channels, side, side)
    before, after = (module_costs(build_network(each), shape) for each in (plain, described))
    _print_images(classes, channels, side)
    label = PER_BLOCK if network.convs else conv
    compared = {"S": before, label: after}
    _print_table([{"Network": f"{network.arch} {each}", **_counts(costs[""])} for each, costs in compared.items()], 4)
    if network.convs:
        print()
        layers = _convs_of_layers(described)
        _print_table([{"Layer": layer, "Convs of its blocks": convs} for layer, convs in layers], numbers=0)
        _print_layers(build_network(plain), before, after, _reasons_per_block(build_network(plain), network.convs))
    elif conv != "S":
        _print_layers(build_network(plain), before, after, reasons_to_keep(build_network(plain)))


def _convs_of_layers(architecture: Architecture) -> Iterator[tuple[str, str]]:
    """Name of each group of residual blocks, the convolutions of its blocks."""
    blocks = zip(residual_blocks(build_network(architecture)), architecture["convs"])
    for layer, group in groupby(blocks, key=lambda block: block[0].rpartition(".")[0]):
        yield layer, " ".join(conv for _, conv in group)


def _reasons_per_block(plain: nn.Module, convs: Sequence[str]) -> dict[str, str | None]:
    """As `reasons_to_keep`, which does not know that blocks with S stay as they are."""
    standard = [f"{path}." for path, conv in zip(residual_blocks(plain), convs) if conv == "S"]
    return {
        path: "S" if reason is None and path.startswith(tuple(standard)) else reason
        for path, reason in reasons_to_keep(plain).items()
    }


def _print_layers(
    plain: nn.Module, before: dict[str, Cost], after: dict[str, Cost], reasons: dict[str, str | None]
) -> None:
    """`reasons` are for keeping the convolutions of the `plain` network; those without one are substituted."""
    substituted = [path for path, reason in reasons.items() if reason is None]
    print(f"\nSubstituted: {len(substituted)} of {len(reasons)} convolutions.\n")
    if substituted:
        _print_table([_change(path, plain, before[path], after.get(path)) for path in substituted], numbers=6)
    print(f"\nNot substituted: {len(reasons) - len(substituted)}.\n")
    kept = {path: reason for path, reason in reasons.items() if reason}
    _print_table([{"Layer": path, "Was": _shape(plain, path), "Why": why} for path, why in kept.items()], numbers=0)


def _change(path: str, plain: nn.Module, before: Cost, after: Cost | None) -> dict[str, str]:
    """`after` is None for the second convolution of a block that has only one left."""
    return {
        "Layer": path,
        "Was": _shape(plain, path),
        "Params": f"{before.parameters:,}",
        "Now": f"{after.parameters:,}" if after else "removed",
        "MACs": f"{before.macs:,}",
        "MACs now": f"{after.macs:,}" if after else "removed",
        "Activations": f"{before.activations:,}",
        "Act. now": f"{after.activations:,}" if after else "removed",
    }


def _shape(network: nn.Module, path: str) -> str:
    layer = network.get_submodule(path)
    assert isinstance(layer, nn.Conv2d)
    stride = f", stride {layer.stride[0]}" if layer.stride[0] > 1 else ""
    kernel = "x".join(map(str, layer.kernel_size))
    return f"{kernel}, {layer.in_channels} -> {layer.out_channels}{stride}"


def _counts(cost: Cost) -> dict[str, str]:
    return {
        "No. Params": f"{cost.parameters:,}",
        "Trainable": f"{cost.trainable:,}",
        "MACs": f"{cost.macs:,}",
        "Activations": f"{cost.activations:,}",
    }


def _print_images(classes: int, channels: int, side: int) -> None:
    print(
        f"{classes} classes, {channels} x {side} x {side} pixels; No. Params counts batch norm's running statistics.\n"
    )


def _print_table(lines: list[dict[str, str]], numbers: int) -> None:
    """The last `numbers` columns hold numbers."""
    left = len(lines[0]) - numbers
    alignment = ["left"] * left + ["right"] * numbers
    print(pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True, colalign=alignment))
