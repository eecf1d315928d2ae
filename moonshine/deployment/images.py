"""Image files as input for a published model, following the model's own description."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from moonshine.data.crops import evaluation_pixels
from moonshine.errors import DataError
from moonshine.images.decoding import decode_eight_bits, turn_upright
from moonshine.project.records import ModelDescription
from moonshine.runtime.progress import printable


def load_images(paths: Sequence[Path], description: ModelDescription) -> torch.Tensor:
    """Float images (len(paths), channels, height, width), prepared like the ones that the model was evaluated on.

    Raises DataError (exit code 3) for a file that is not a readable 8-bit image, or is too long and thin.
    """
    return torch.stack([_load(path, description) for path in paths])


def _load(path: Path, description: ModelDescription) -> torch.Tensor:
    name = printable(str(path))
    channels, preprocessing = description["input"][0], description["preprocessing"]
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from None
    image = decode_eight_bits(encoded, name, channels)
    if preprocessing.get("exif_orientation"):
        image = turn_upright(image, encoded)
    pixels = torch.from_numpy(_pixels(image, name, description).copy()).permute(2, 0, 1)
    mean, std = (torch.tensor(description["normalisation"][key]).view(-1, 1, 1) * 255 for key in ("mean", "std"))
    return (pixels - mean) / std


def _pixels(image: Image.Image, name: str, description: ModelDescription) -> np.ndarray:
    """(height, width, channels) uint8."""
    preprocessing, channels = description["preprocessing"], description["input"][0]
    if "resize" not in preprocessing:
        return evaluation_pixels(image, name, preprocessing["crop"][0], preprocessing["shorter_side"])
    height, width = preprocessing["resize"]
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, channels)
