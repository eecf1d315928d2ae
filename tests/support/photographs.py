"""Folders of photographs as people have them: JPEG and PNG, landscape and portrait, from cameras and scanners."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

CLASSES = ("anemone", "buttercup", "crocus", "daisy", "foxglove", "iris", "lily", "tulip")
ROTATED = 6
"""EXIF orientation of a photograph that was taken upright and is stored on its side."""


def draw_photographs(root: Path, classes: int = 8, train: int = 6, val: int = 2, grey: bool = False) -> Path:
    """train/ and val/ with a folder per class; returns the folder.

    The first of each class is a CMYK JPEG, the second a PNG named .jpg, the third is stored turned, and so on.
    """
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(CLASSES[:classes]):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                _draw(label, number, random, grey, folder / f"{number:03}.jpg")
    return root


def _draw(label: int, number: int, random: np.random.Generator, grey: bool, path: Path) -> None:
    """A bar at a height and in a colour that depend on the class, over noise."""
    width, height = (48, 36) if number % 2 else (36, 48)
    pixels = random.integers(0, 120, (height, width, 3))
    pixels[4 * label : 4 * label + 8, :, label % 3] = 240
    image = Image.fromarray(pixels.astype(np.uint8))
    if grey:
        image.convert("L").save(path)
    elif number == 0:
        image.convert("CMYK").save(path)
    elif number == 1:
        image.save(path, "PNG")
    elif number == 2:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = ROTATED
        image.rotate(90, expand=True).save(path, exif=exif)
    else:
        image.save(path)
