"""A small image data set in memory, as a source's `prepare` returns it to be written."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Prepared:
    """`images`, `labels` and `ids` have one entry per split ("train", "val")."""

    classes: list[str]
    """Names by label."""
    images: dict[str, np.ndarray]
    """uint8, shape (images, channels, height, width)."""
    labels: dict[str, np.ndarray]
    ids: dict[str, list[str]]
    """Where in the source each image was."""
    origin: dict[str, Any]
    """What the manifest records about the source: its name, hashes, how it was split."""
