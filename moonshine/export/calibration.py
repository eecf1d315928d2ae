"""Images that the ranges of activations are taken from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from moonshine.data.crops import evaluation_pixels
from moonshine.data.normalisation import Normalisation
from moonshine.images.decoding import decode
from moonshine.images.store import Split
from moonshine.project import records

BATCH_SIZE = 32


def calibration_batches(folder: Path, count: int, of_network: records.Normalisation) -> Iterator[np.ndarray]:
    """Training images of a prepared data set as networks are evaluated on, float32 (batch, channels, height, width).

    They are at equal distances in the split, so of all classes even if it is sorted by class. `count` is at most the
    number of its images.
    """
    split = Split(folder, "train")
    normalisation = Normalisation(of_network, torch.device("cpu"))
    small = split.pixels if split.manifest["encoding"] == "raw" else None
    indices = [place * len(split) // count for place in range(count)]
    for first in range(0, count, BATCH_SIZE):
        batch = indices[first : first + BATCH_SIZE]
        if small is not None:
            images = normalisation.channels_first(torch.from_numpy(small[batch]))
        else:
            pixels = np.stack([_pixels(split, index) for index in batch])
            images = normalisation.channels_last(torch.from_numpy(pixels))
        yield np.ascontiguousarray(images.numpy())


def _pixels(split: Split, index: int) -> np.ndarray:
    """(height, width, channels) uint8."""
    channels, size = split.manifest["shape"][0], split.manifest["shape"][1]
    name = f"{split.path}: image {index}"
    return evaluation_pixels(
        decode(split.encoded(index), name, channels), name, size, split.manifest["evaluation"]["resize"]
    )
