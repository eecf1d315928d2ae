"""Where a network's attention is read: the ends of its stages, by family, without importing torch."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_VGG_CONVOLUTIONS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_FAMILIES = {
    "ResNet": (r"(resnet|resnext|wide_resnet).*", ("layer1", "layer2", "layer3", "layer4")),
    "WideResNet": (r"wrn-.*", ("group1", "group2", "group3")),
    "DenseNet": (r"densenet.*", tuple(f"features.denseblock{block}" for block in (1, 2, 3, 4))),
    "RegNet": (r"regnet_.*", tuple(f"trunk_output.block{block}" for block in (1, 2, 3, 4))),
    "ShuffleNetV2": (r"shufflenet_.*", ("stage2", "stage3", "stage4")),
    "ConvNeXt": (r"convnext_.*", ("features.1", "features.3", "features.5", "features.7")),
    "MobileNetV2": (r"mobilenet_v2", ("features.1", "features.3", "features.6", "features.13", "features.17")),
}
"""Network class -> pattern of its architecture names, ends of its stages."""


def attention_layers_of(architecture: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths of the modules whose outputs' attention is compared, from the image to the classifier.

    The description's `points` if it has any, else the ends of the family's stages; empty for a family without them.
    """
    if points := architecture.get("points"):
        return tuple(points)
    return _stages(architecture["arch"])


def attention_layers(network: "nn.Module") -> tuple[str, ...]:
    """Like `attention_layers_of`, from a built network of torchvision's families or with a ResNet's layer1 to layer4.

    Empty for any other.
    """
    family = next((each.__name__ for each in type(network).__mro__ if each.__name__ in (*_FAMILIES, "VGG")), None)
    paths = {path for path, _ in network.named_modules()}
    if family == "VGG":
        features = list(network.get_submodule("features").named_children())
        poolings = [i for i, (_, layer) in enumerate(features) if type(layer).__name__ == "MaxPool2d"]
        layers = tuple(f"features.{features[i - 1][0]}" for i in poolings)
    else:
        layers = _FAMILIES[family or "ResNet"][1]
    return layers if paths.issuperset(layers) else ()


def _stages(arch: str) -> tuple[str, ...]:
    if arch.startswith("vgg"):
        return _vgg_stages(arch)
    return next((layers for name, layers in _FAMILIES.values() if re.fullmatch(name, arch)), ())


def _vgg_stages(arch: str) -> tuple[str, ...]:
    """The ReLU before each pooling: a convolution, its batch norm if any, and its ReLU are consecutive modules."""
    name, _, batch_norm = arch.partition("_")
    modules = 3 if batch_norm else 2
    ends, index = [], 0
    for convolutions in _VGG_CONVOLUTIONS[name]:
        index += modules * convolutions
        ends.append(f"features.{index - 1}")
        index += 1  # the pooling
    return tuple(ends)
