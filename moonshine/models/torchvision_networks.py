"""torchvision's classification networks unchanged, but its ResNets' group widths and stem can be set."""

import math
from typing import Any

from torch import nn
from torchvision.models import get_model
from torchvision.models.resnet import ResNet

from moonshine.models.convolutions import he_normal

GROUPS = ("layer1", "layer2", "layer3", "layer4")
# Networks whose auxiliary heads, which only some training recipes use, are left out.
SINGLE_HEADED: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
AUXILIARY_HEADS = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""How the names of these heads' tensors begin in published checkpoints."""


def torchvision_network(
    arch: str, classes: int, in_channels: int, channels: list[int] | None = None, stem: str | None = None
) -> nn.Module:
    """The network, randomly initialised as its authors do.

    For ResNets only: `channels` are the widths of the four groups, the first also of the stem; `stem="3x3"` is
    the variant for small images, a 3x3 convolution with stride 1 and no pooling.
    Input: float (batch, in_channels, height, width); output: (batch, classes).
    """
    network = get_model(arch, weights=None, num_classes=classes, **SINGLE_HEADED.get(arch, {}))
    if channels:
        _set_widths(network, channels)
    if stem == "3x3":
        network.conv1 = he_normal(nn.Conv2d(3, network.conv1.out_channels, 3, 1, 1, bias=False))
        network.maxpool = nn.Identity()
    if in_channels != 3:
        _set_colours(network, in_channels)
    return network


def _set_widths(network: ResNet, widths: list[int]) -> None:
    """Rebuild the stem and the layers. ValueError if a ResNeXt's convolutions would have no channels left."""
    narrowest = math.ceil(64 / network.base_width)
    if min(widths) < narrowest:
        raise ValueError(f"channels: {min(widths)} leaves its grouped convolutions none; {narrowest} is the least")
    block = type(network.layer1[0])
    blocks = [len(network.get_submodule(group)) for group in GROUPS]
    network.conv1 = he_normal(nn.Conv2d(3, widths[0], 7, 2, 3, bias=False))
    network.bn1 = nn.BatchNorm2d(widths[0])
    network.inplanes = widths[0]
    for index, (group, width, count) in enumerate(zip(GROUPS, widths, blocks)):
        made = network._make_layer(block, width, count, stride=1 if index == 0 else 2)
        network.set_submodule(group, he_normal(made))
    network.fc = nn.Linear(network.inplanes, network.fc.out_features)


def _set_colours(network: nn.Module, in_channels: int) -> None:
    """Give the first convolution new weights for images with another number of channels."""
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    first.in_channels = in_channels
    first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, in_channels, *first.kernel_size))
    he_normal(first)
