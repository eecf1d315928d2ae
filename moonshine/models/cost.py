"""What a network costs: parameters in both counts, and multiply-accumulates."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from moonshine.models.networks import build_network


@dataclass(frozen=True)
class Cost:
    """`learnable` counts parameters; `parameters` adds BN's running means and variances, as the lab note counted
    (it summed a state dict before `num_batches_tracked` existed); `macs` are those of convolutions and linear layers
    for one image."""

    parameters: int
    learnable: int
    macs: int


def network_cost(architecture: dict[str, Any], height: int, width: int) -> Cost:
    """Cost of an architecture for one image; nothing is allocated."""
    network = build_network(architecture).eval()
    learnable = sum(parameter.numel() for parameter in network.parameters())
    images = torch.empty(1, architecture["in_channels"], height, width, device="meta")
    return Cost(learnable + _statistics(network), learnable, _macs(network, images))


def _statistics(network: nn.Module) -> int:
    return sum(buffer.numel() for name, buffer in network.named_buffers() if not name.endswith("num_batches_tracked"))


def _macs(network: nn.Module, images: torch.Tensor) -> int:
    """PyTorch's counter counts two operations a multiply-accumulate."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(images)
    return counter.get_total_flops() // 2
