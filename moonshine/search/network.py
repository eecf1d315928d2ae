"""Networks that differ in the convolutions of their residual blocks: what these cost, and one that becomes any."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

from moonshine.data.order import generator
from moonshine.errors import ParamsError
from moonshine.models.networks import initialise, place
from moonshine.models.residual_blocks import residual_blocks, substitute_blocks
from moonshine.models.wide_resnet import WideResNet
from moonshine.project.records import Architecture
from moonshine.search.sampling import COSTS, CostTable


def networks_of_pool(architecture: Architecture, pool: Sequence[str], key: str) -> dict[str, nn.Module]:
    """Convolution -> the network in whose residual blocks it is, on the CPU, with any weights.

    Raises ParamsError (exit code 2) with the convolutions of the pool that cannot be built; `key` is the search's.
    """
    standard, networks, unbuildable = initialise(architecture, 0), dict[str, nn.Module](), list[str]()
    blocks = len(residual_blocks(standard))
    for conv in pool:
        networks[conv] = copy.deepcopy(standard)
        try:
            substitute_blocks(networks[conv], [conv] * blocks)
        except ValueError as error:
            unbuildable.append(str(error))
    if unbuildable:
        raise ParamsError("\n".join(f"{key}.pool: {reason}; leave it out" for reason in unbuildable))
    return networks


def cost_table(networks: dict[str, nn.Module], channels: int, size: int) -> CostTable:
    """The costs, for images of `size` x `size` pixels, of networks with any of the pool's convolutions in any block.

    `networks` are those of `networks_of_pool`.
    """
    blocks, outside = zip(*(_costs(network, torch.zeros(1, channels, size, size)) for network in networks.values()))
    of_blocks = {cost: torch.tensor([[of[cost] for of in of_conv] for of_conv in blocks]).T for cost in COSTS}
    return CostTable(tuple(networks), outside[0], of_blocks)


def _costs(network: nn.Module, image: torch.Tensor) -> tuple[list[dict[str, int]], dict[str, int]]:
    """Of each residual block, and of the rest together.

    Counted as costs.counts does for any network, but where only convolutions and a linear layer have MACs: PyTorch's
    counter takes twenty times as long, which would be minutes for a pool.
    """
    outputs: dict[nn.Module, int] = {}

    def note(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
        outputs[layer] = output.numel()

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        network.eval()(image)
    for hook in hooks:
        hook.remove()

    def costs(module: nn.Module) -> dict[str, int]:
        inside = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        return {
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "macs": sum(outputs[layer] * layer.weight[0].numel() for layer in inside),
            "activations": sum(outputs[layer] for layer in inside),
        }

    whole, of_blocks = costs(network), [costs(block) for block in residual_blocks(network).values()]
    return of_blocks, {cost: whole[cost] - sum(of[cost] for of in of_blocks) for cost in COSTS}


class CandidateNetwork:
    """One network that becomes any candidate: its blocks are exchanged, and its weights drawn anew, in place.

    Building each candidate takes six times as long, a good part of what ranking it takes.
    """

    def __init__(self, networks: dict[str, nn.Module], device: torch.device):
        """`networks` are those of `networks_of_pool`, whose blocks are used."""
        placed = [place(network, device).train() for network in networks.values()]
        self.network = placed[0]
        self._paths = [*residual_blocks(self.network)]
        self._blocks = [[*residual_blocks(network).values()] for network in placed]

    def become(self, choices: Sequence[int], seed: int, candidate: int) -> nn.Module:
        """The network with these positions of the pool in its blocks, and the weights of (seed, candidate).

        They are drawn as `models.networks.initialise` does it: He normal for convolutions, PyTorch's default for the
        classifier, whose bias is 0 in wide ResNets. Batch norm begins as the identity in all networks.
        """
        for block, (path, choice) in enumerate(zip(self._paths, choices)):
            self.network.set_submodule(path, self._blocks[choice][block])
        random = generator("candidate", seed, candidate)
        for layer in self.network.modules():
            if isinstance(layer, nn.Conv2d):
                fan_out = layer.out_channels * math.prod(layer.kernel_size)
                _draw(
                    layer.weight, torch.empty(layer.weight.shape).normal_(0, math.sqrt(2 / fan_out), generator=random)
                )
            elif isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                for parameter in (layer.weight, layer.bias):
                    _draw(parameter, torch.empty(parameter.shape).uniform_(-bound, bound, generator=random))
                if isinstance(self.network, WideResNet):
                    nn.init.zeros_(layer.bias)
        return self.network


def _draw(parameter: torch.Tensor, values: torch.Tensor) -> None:
    """Drawn on the CPU, so that they are the same on all devices and in all memory layouts."""
    with torch.no_grad():
        parameter.copy_(values)
