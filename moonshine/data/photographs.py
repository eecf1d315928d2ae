"""Photographs of any size, as JPEG bytes, to the fixed uint8 pixels that networks see.

The pixels are those of torchvision's transforms on Pillow images, bit for bit: the same decoder and the same filter
do the work. (Faster ones round otherwise: torch's antialiased interpolation of uint8 differs by one grey level in some
pixels, for its weights have 15 bits and Pillow's 22.)
"""

import io
import math
import struct
import warnings

import numpy as np
from PIL import Image

from moonshine.errors import DataError

RATIOS = (3 / 4, 4 / 3)
"""Aspect ratios that RandomResizedCrop draws from, width over height."""
ATTEMPTS = 10

warnings.filterwarnings("ignore", message="Corrupt EXIF data")  # `prepare` records it once
# Pillow uses its memory again: having the kernel zero pages for every image takes a fifth of its decoding.
Image.core.set_blocks_max(8)  # type: ignore[attr-defined]

Box = tuple[int, int, int, int]
"""left, top, right, bottom."""


def decode(encoded: bytes, name: str) -> Image.Image:
    """An RGB image of whatever Pillow can read: JPEG in RGB, grey or CMYK, PNG; EXIF is not looked at.

    DataError (exit code 3) with the image's name where it cannot be decoded to its end.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        if image.mode != "RGB":
            return image.convert("RGB")
        image.load()  # convert() would copy it
        return image
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot be decoded ({error})") from None


def draw_box(random: np.random.Generator, width: int, height: int, scale: tuple[float, float]) -> Box:
    """The crop of torchvision's RandomResizedCrop: an area share from `scale`, a ratio drawn on a log scale."""
    ratios = np.log(RATIOS)
    for _ in range(ATTEMPTS):
        area = width * height * random.uniform(*scale)
        ratio = math.exp(random.uniform(*ratios))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(random.integers(width - across + 1)), int(random.integers(height - down + 1))
            return left, top, left + across, top + down
    return _central_box(width, height, *_within_ratios(width, height))


def _within_ratios(width: int, height: int) -> tuple[int, int]:
    """The largest (width, height) inside the image whose ratio is allowed."""
    if width / height < RATIOS[0]:
        return width, round(width / RATIOS[0])
    if width / height > RATIOS[1]:
        return round(height * RATIOS[1]), height
    return width, height


def _central_box(width: int, height: int, across: int, down: int) -> Box:
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def training_pixels(
    image: Image.Image, size: int, scale: tuple[float, float], flip: bool, random: np.random.Generator
) -> np.ndarray:
    """A random crop scaled to (size, size, 3) uint8, mirrored every other time where `flip`."""
    crop = image.crop(draw_box(random, *image.size, scale)).resize((size, size), Image.Resampling.BILINEAR)
    mirrored = flip and random.random() < 0.5
    return np.asarray(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop)


def evaluation_pixels(image: Image.Image, size: int, shorter_side: int) -> np.ndarray:
    """The central (size, size, 3) uint8 of the image scaled to a shorter side, as Resize and CenterCrop give it."""
    scaled = resize_shorter_side(image, shorter_side)
    left, top = round((scaled.width - size) / 2), round((scaled.height - size) / 2)
    return np.asarray(scaled.crop((left, top, left + size, top + size)))


def resize_shorter_side(image: Image.Image, side: int) -> Image.Image:
    """torchvision's Resize(side): the longer side is rounded down."""
    width, height = image.size
    if width <= height:
        return image.resize((side, int(side * height / width)), Image.Resampling.BILINEAR)
    return image.resize((int(side * width / height), side), Image.Resampling.BILINEAR)
