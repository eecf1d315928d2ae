"""torchvision's ResNets, with the width of each group and the stem as settings."""

from torch import nn
from torchvision.models import resnet

GROUPS = ("layer1", "layer2", "layer3", "layer4")
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}


def build_resnet(arch: str, classes: int, in_channels: int, channels: list[int] | None, stem: str | None) -> nn.Module:
    """torchvision's network, its groups remade where other widths than 64, 128, 256, 512 are wanted.

    `stem="3x3"` is the form for small images: a 3x3 convolution of stride 1, no pooling. Its width is that of the
    first group. Input: float (batch, in_channels, height, width); output: (batch, classes).
    """
    network = resnet.ResNet(resnet.BasicBlock, list(BLOCKS[arch]), num_classes=classes)
    widths = channels or [64, 128, 256, 512]
    if stem == "3x3":
        network.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        network.maxpool = nn.Identity()
    elif in_channels != 3 or widths[0] != 64:
        network.conv1 = nn.Conv2d(in_channels, widths[0], 7, 2, 3, bias=False)
    if channels:
        network.bn1 = nn.BatchNorm2d(widths[0])
        network.inplanes = widths[0]
        for index, (group, width, blocks) in enumerate(zip(GROUPS, widths, BLOCKS[arch])):
            stride = 1 if index == 0 else 2
            setattr(network, group, network._make_layer(resnet.BasicBlock, width, blocks, stride))
        network.fc = nn.Linear(widths[-1], classes)
    return network
