"""Human-readable names of a model's classes."""

import hashlib
from collections.abc import Sequence

from torchvision.models import ResNet50_Weights

ILSVRC2012 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
"""Hex sha256 of its 1,000 WordNet ids in alphabetical order, joined by newlines; timm and TensorFlow Datasets agree."""


def class_names(classes: Sequence[str]) -> list[str]:
    """The data set's class names; for ImageNet's 1,000 WordNet ids, in their order, torchvision's names."""
    if hashlib.sha256("\n".join(classes).encode()).hexdigest() == ILSVRC2012:
        return list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    return list(classes)
