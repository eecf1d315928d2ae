"""What a network costs: parameters, counted in two ways, multiply-accumulates, and activations."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from moonshine.models.networks import build_network, without_wrappers
from moonshine.project.records import Architecture


@dataclass(frozen=True)
class Cost:
    """`trainable` counts the parameters that are not frozen. `parameters` counts all of them and the buffers, which are
    BN's running means and variances, as the lab note did (it summed a state dict before `num_batches_tracked` existed).
    `macs` are the multiply-accumulates of convolutions and matrix products for one image; `activations` are the
    elements of their outputs, which these layers write to memory, as timm and fvcore count them."""

    parameters: int
    trainable: int
    macs: int
    activations: int

    def as_metrics(self) -> dict[str, int]:
        """Under the names that metrics and tables have for them."""
        counts = {"macs": self.macs, "activations": self.activations}
        return {"parameters": self.parameters, "learnable": self.trainable, **counts}


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
    macs, activations = _operations(shadow, torch.empty(1, *input_shape, device="meta"))
    costs = {}
    for path, module in shadow.named_modules():
        parameters = sum(parameter.numel() for parameter in module.parameters())
        trainable = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
        of_path = (macs.get(path, 0), activations.get(path, 0))
        costs[path] = Cost(parameters + _statistics(module), trainable, *of_path)
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


def _operations(network: nn.Module, images: torch.Tensor) -> tuple[dict[str, int], dict[str, int]]:
    """Path -> multiply-accumulates, and path -> elements of the outputs of the operations that have them."""
    with FlopCounterMode(display=False) as counter:
        elements = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(flop_registry, _elements))
        with elements, torch.inference_mode():
            network(images)
    operations, outputs = _by_path(counter), _by_path(elements)
    return {path: count // 2 for path, count in operations.items()}, outputs  # a multiplication and an addition each


def _elements(*_: Any, out_shape: Any, **__: Any) -> int:
    """Takes the place of an operation's count; fused attention gives more outputs, of which the first is passed on."""
    return math.prod(out_shape if isinstance(out_shape, torch.Size) else out_shape[0])


def _by_path(counter: FlopCounterMode) -> dict[str, int]:
    """PyTorch's counter starts paths with the class."""
    return {
        module.partition(".")[2]: sum(counts.values())
        for module, counts in counter.get_flop_counts().items()
        if module != "Global"
    }
