"""Wide ResNets for small images (Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016), pre-activation.

WRN-depth-width: a 3x3 stem of 16 channels, three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times `width`
channels, batch norm, ReLU, pooling, classifier. The stride of groups 2 and 3 sits on their first convolution.
"""

import torch
from torch import nn

from moonshine.models.convolutions import he_normal

STEM, GROUPS = 16, ("group1", "group2", "group3")


class WideResNet(nn.Module):
    """`convolutions` is the number per block: 2 in the basic block, 1 in the blocks of the paper's B and BG rows.

    Input: float (batch, in_channels, height, width); output: (batch, classes).
    """

    def __init__(self, depth: int, width: int, convolutions: int, classes: int, in_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, STEM, 3, 1, 1, bias=False)
        channels = STEM
        for index, name in enumerate(GROUPS):
            outputs = STEM * width * 2**index
            group = nn.Sequential()
            for block in range((depth - 4) // 6):
                stride = 2 if index > 0 and block == 0 else 1
                group.append(WideBlock(channels, outputs, stride, convolutions))
                channels = outputs
            self.add_module(name, group)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(channels, classes)
        he_normal(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv1(images)
        for name in GROUPS:
            features = self.get_submodule(name)(features)
        return self.fc(self.relu(self.bn(features)).mean(dim=(2, 3)))


class WideBlock(nn.Module):
    """(batch norm -> ReLU -> 3x3) once or twice, added to the shortcut.

    The shortcut is the input itself, or a 1x1 convolution of the activated input if channels change.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, convolutions: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs) if convolutions == 2 else None
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False) if convolutions == 2 else None
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        active = self.relu(self.bn1(features))
        shortcut = features if self.shortcut is None else self.shortcut(active)
        out = self.conv1(active)
        if self.bn2 is not None and self.conv2 is not None:
            out = self.conv2(self.relu(self.bn2(out)))
        return shortcut + out
