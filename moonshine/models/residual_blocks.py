"""Residual blocks with a cheap convolution of their own each, as in BlockSwap.

Turner, Crowley, O'Boyle, Storkey, Gray, "BlockSwap: Fisher-guided Block Substitution for Network Compression on a
Budget", ICLR 2020 (arXiv 1906.04113). Bottlenecks, B and BG, stand in blocks of one convolution, all others in blocks
of two, as in the tables of the Moonshine paper.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from moonshine.models.conv_spec import parse_conv
from moonshine.models.convolutions import is_replaceable, replace_convolution
from moonshine.models.wide_resnet import WideBlock


class SingleBlock(nn.Module):
    """Convolution -> batch norm, added to the shortcut, -> ReLU: torchvision's BasicBlock with one convolution.

    It takes the place of a BasicBlock and keeps the layers that have the same task in it, under their names: the first
    convolution, which has the block's stride and change of channels, the batch norm before the addition, and the
    shortcut. So weights of the longer block fit the same layers here.
    """

    def __init__(self, block: BasicBlock):
        super().__init__()
        self.conv1 = block.conv1
        self.bn2 = block.bn2
        self.relu = block.relu
        self.downsample = block.downsample
        self.training = block.training

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        shortcut = features if self.downsample is None else self.downsample(features)
        return self.relu(self.bn2(self.conv1(features)) + shortcut)


def residual_blocks(network: nn.Module) -> dict[str, BasicBlock | SingleBlock | WideBlock]:
    """Path -> block, from the image to the classifier; of torchvision's ResNets, only ResNet-18 and -34 have any."""
    kinds = (BasicBlock, SingleBlock, WideBlock)
    return {path: block for path, block in network.named_modules() if type(block) in kinds}


def substitute_blocks(network: nn.Module, convs: Sequence[str]) -> list[str]:
    """Give each residual block, in place, the convolution in its place of the list; returns the paths of new ones.

    A block with a bottleneck becomes a block of one convolution, and loses the second one with its batch norm. New
    convolutions are as those of `substitute`. ValueError for an unknown convolution, a network with another number of
    blocks, a block whose convolutions are not plain 3x3 ones, and a convolution that cannot be built.
    """
    blocks, replaced = residual_blocks(network), list[str]()
    if len(convs) != len(blocks):
        raise ValueError(f"{len(convs)} convolutions for {len(blocks)} residual blocks of two 3x3 convolutions")
    for index, ((path, block), conv) in enumerate(zip(blocks.items(), convs)):
        spec = parse_conv(conv, f"convs.{index}")
        if not (is_replaceable(block.conv1) and is_replaceable(getattr(block, "conv2", None))):
            raise ValueError(f"block {path}: does not have two plain 3x3 convolutions any more")
        if spec.is_standard:
            continue
        layers = [f"{path}.conv1"]
        if spec.bottleneck is None:
            layers.append(f"{path}.conv2")
        elif isinstance(block, WideBlock):
            block.bn2 = block.conv2 = None
        elif isinstance(block, BasicBlock):
            network.set_submodule(path, SingleBlock(block))
        for layer in layers:
            replace_convolution(network, layer, spec)
        replaced += layers
    return replaced
