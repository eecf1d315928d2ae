"""What a network costs: parameters in both counts, and multiply-accumulates."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from moonshine.models.networks import build_network
from moonshine.project.records import Architecture


@dataclass(frozen=True)
class Cost:
    """`learnable` counts parameters; `parameters` adds BN's running means and variances, as the lab note counted
    (it summed a state dict before `num_batches_tracked` existed); `macs` are those of convolutions and linear layers
    for one image."""

    parameters: int
    learnable: int
    macs: int


def network_cost(architecture: Architecture, height: int, width: int) -> Cost:
    """Cost of an architecture for one image; nothing is allocated."""
    return module_costs(architecture, height, width)[""]


def module_costs(architecture: Architecture, height: int, width: int) -> dict[str, Cost]:
    """Path -> cost within the network, for each of its modules; that of the whole is at the path ""."""
    network = build_network(architecture).eval()
    macs = _macs(network, torch.empty(1, architecture["in_channels"], height, width, device="meta"))
    costs = {}
    for path, module in network.named_modules():
        learnable = sum(parameter.numel() for parameter in module.parameters())
        costs[path] = Cost(learnable + _statistics(module), learnable, macs.get(path, 0))
    return costs


def _statistics(module: nn.Module) -> int:
    return sum(buffer.numel() for name, buffer in module.named_buffers() if not name.endswith("num_batches_tracked"))


def _macs(network: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """By path. PyTorch's counter counts two operations a multiply-accumulate, and begins paths with the class."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(images)
    return {
        module.partition(".")[2]: sum(operations.values()) // 2
        for module, operations in counter.get_flop_counts().items()
        if module != "Global"
    }
