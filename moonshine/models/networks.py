"""From the description of a network to the network."""

from typing import Any

import torch
from torch import nn

from moonshine.errors import ParamsError
from moonshine.models.convolutions import substitute
from moonshine.models.resnet import GROUPS, build_resnet


def build_network(architecture: dict[str, Any]) -> nn.Module:
    """The network of a description, on the meta device: without weights, in no time.

    Give it weights by `initialise` or by loading a state dict with assign=True. Raises ParamsError (exit code 2)
    where the convolution cannot be built for the channels.
    """
    given = dict(architecture)
    conv = given.pop("conv", "S")
    with torch.device("meta"):
        network = build_resnet(channels=given.pop("channels", None), stem=given.pop("stem", None), **given)
        try:
            if conv != "S":
                substitute(network, conv, within=GROUPS)
        except ValueError as error:
            raise ParamsError(f"{architecture['arch']} with {conv}: {error}") from None
    return network


def initialise(network: nn.Module, generator_seed: int) -> nn.Module:
    """Weights as torchvision's ResNets start: He normal (fan out) for convolutions, ones and zeros for BN.

    A pure function of the architecture and the seed; leaves PyTorch's global random state alone.
    """
    network = network.to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_seed)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(layer, (nn.BatchNorm2d, nn.Linear)):
                layer.reset_parameters()
    return network


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on its device in the memory layout that is fastest there; activations follow its weights.

    That is channels last, but for one case: on AVX2 machines oneDNN (of torch 2.14) writes past its buffers in the
    backward pass of a strided 1x1 convolution of fewer than 8 channels laid out so.
    """
    thin = any(
        isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels < 8
        for layer in network.modules()
    )
    layout = torch.contiguous_format if thin and device.type == "cpu" else torch.channels_last
    return network.to(device).to(memory_format=layout)


def attention_points(architecture: dict[str, Any]) -> tuple[str, ...]:
    """Module paths whose outputs' attention is compared: the ends of the groups of blocks."""
    return GROUPS
