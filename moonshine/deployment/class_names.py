"""Names of a model's classes that a reader understands."""

import re
from collections.abc import Sequence

from torchvision.models import ResNet50_Weights

IMAGENET_CLASSES = 1000


def class_names(classes: Sequence[str]) -> list[str]:
    """The classes as the data set calls them; for ImageNet's 1,000 WordNet ids, in their order, torchvision's words."""
    if len(classes) == IMAGENET_CLASSES and all(re.fullmatch(r"n\d{8}", name) for name in classes):
        return list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    return list(classes)
