"""`moonshine describe`: what networks cost, without data or weights."""

import pandas as pd

from moonshine.errors import ParamsError
from moonshine.models.architecture import describe
from moonshine.models.cost import network_cost
from moonshine.params import Network, Params

IMAGENET_SIDE, IMAGENET_CLASSES = 224, 1000


def describe_architecture(arch: str, conv: str | None) -> None:
    """Print the cost of one architecture on ImageNet."""
    try:
        network = Network(arch=arch, conv=conv)
    except ValueError as error:
        raise ParamsError(
            str(error).splitlines()[2].strip().removeprefix("Value error, ").split(" [type=")[0]
        ) from None
    _print({arch if conv is None else f"{arch} {conv}": network}, IMAGENET_CLASSES, 3, IMAGENET_SIDE)


def describe_experiment(params: Params) -> None:
    """Print the cost of every network of an experiment, for its images."""
    dataset = params.dataset
    _print(params.networks, dataset.classes, dataset.channels, dataset.size)


def _print(networks: dict[str, Network], classes: int, channels: int, side: int) -> None:
    lines = []
    for name, network in networks.items():
        cost = network_cost(describe(network, classes, channels), side, side)
        lines.append(
            {
                "Network": name,
                "Arch": network.arch,
                "Conv": network.conv or "S",
                "No. Params": f"{cost.parameters:,}",
                "Learnable": f"{cost.learnable:,}",
                "MACs": f"{cost.macs:,}",
            }
        )
    print(
        f"{classes} classes, {channels} x {side} x {side} pixels; No. Params counts batch norm's running statistics.\n"
    )
    print(pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True, colalign=["left"] * 3 + ["right"] * 3))
