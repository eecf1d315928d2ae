"""Where a network's attention is read: the ends of its stages, by family, without importing torch."""

import re
from collections.abc import Mapping
from typing import Any

from moonshine.models.names import wide_resnet_shape

_VGG_CONVOLUTIONS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_FAMILIES = {
    r"(resnet|resnext|wide_resnet).*": ("layer1", "layer2", "layer3", "layer4"),
    r"densenet.*": tuple(f"features.denseblock{block}" for block in (1, 2, 3, 4)),
    r"regnet_.*": tuple(f"trunk_output.block{block}" for block in (1, 2, 3, 4)),
    r"shufflenet_.*": ("stage2", "stage3", "stage4"),
    r"convnext_.*": ("features.1", "features.3", "features.5", "features.7"),
    r"mobilenet_v2": ("features.1", "features.3", "features.6", "features.13", "features.17"),
}


def attention_points(architecture: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths of the modules whose outputs' attention is compared, from the image to the classifier.

    Those that the description names as `points`, else the ends of the family's stages; empty for a family without.
    """
    if points := architecture.get("points"):
        return tuple(points)
    return _stages(architecture["arch"])


def _stages(arch: str) -> tuple[str, ...]:
    if wide_resnet_shape(arch):
        return ("group1", "group2", "group3")
    if arch.startswith("vgg"):
        return _vgg_stages(arch)
    return next((stages for family, stages in _FAMILIES.items() if re.fullmatch(family, arch)), ())


def _vgg_stages(arch: str) -> tuple[str, ...]:
    """The ReLU before each pooling: a convolution, its batch norm if it has one, and its ReLU are modules in a row."""
    name, _, batch_norm = arch.partition("_")
    modules = 3 if batch_norm else 2
    ends, index = [], 0
    for convolutions in _VGG_CONVOLUTIONS[name]:
        index += modules * convolutions
        ends.append(f"features.{index - 1}")
        index += 1  # the pooling
    return tuple(ends)
