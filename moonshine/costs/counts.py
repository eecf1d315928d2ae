"""What a network costs: parameters, counted in two ways, and multiply-accumulates."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from moonshine.models.networks import build_network, without_wrappers
from moonshine.project.records import Architecture


@dataclass(frozen=True)
class Cost:
    """`trainable` counts the parameters that are not frozen. `parameters` counts all of them and the buffers, which are
    BN's running means and variances, as the lab note did (it summed a state dict before `num_batches_tracked` existed).
    `macs` are the multiply-accumulates of convolutions and matrix products for one image."""

    parameters: int
    trainable: int
    macs: int

    def as_metrics(self) -> dict[str, int]:
        """Under the names that metrics and tables have for them."""
        return {"parameters": self.parameters, "learnable": self.trainable, "macs": self.macs}


def network_cost(architecture: Architecture, height: int, width: int) -> Cost:
    """Cost of an architecture for one image; nothing is allocated."""
    return cost(build_network(architecture), (architecture["in_channels"], height, width))


def cost(network: nn.Module, input_shape: Sequence[int]) -> Cost:
    """Cost of a network in eval mode for one image of `input_shape`, (channels, height, width).

    Nothing is computed or allocated, and the network stays as it is: a copy is traced on the meta device.
    """
    return module_costs(network, input_shape)[""]


def module_costs(network: nn.Module, input_shape: Sequence[int]) -> dict[str, Cost]:
    """Path -> cost, for each module of the network; the path of the whole network is ""."""
    shadow = _without_weights(without_wrappers(network)).eval()
    macs = _macs(shadow, torch.empty(1, *input_shape, device="meta"))
    costs = {}
    for path, module in shadow.named_modules():
        parameters = sum(parameter.numel() for parameter in module.parameters())
        trainable = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
        costs[path] = Cost(parameters + _statistics(module), trainable, macs.get(path, 0))
    return costs


def _without_weights(network: nn.Module) -> nn.Module:
    """A copy on the meta device, made without copying the weights first."""
    attributes = (value for module in network.modules() for value in vars(module).values())
    tensors = [*network.buffers(), *(value for value in attributes if isinstance(value, torch.Tensor))]
    shapes: dict[int, torch.Tensor] = {id(tensor): tensor.to("meta") for tensor in tensors}
    for parameter in network.parameters():
        shapes[id(parameter)] = nn.Parameter(parameter.data.to("meta"), parameter.requires_grad)
    return copy.deepcopy(network, shapes)


def _statistics(module: nn.Module) -> int:
    return sum(buffer.numel() for name, buffer in module.named_buffers() if not name.endswith("num_batches_tracked"))


def _macs(network: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """By path. PyTorch's counter counts two operations per multiply-accumulate and starts paths with the class."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(images)
    return {
        module.partition(".")[2]: sum(operations.values()) // 2
        for module, operations in counter.get_flop_counts().items()
        if module != "Global"
    }
