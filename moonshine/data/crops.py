"""From JPEG bytes to the fixed-size uint8 pixels that networks see.

The pixels are those of torchvision's transforms on Pillow images, bit for bit: decoder and filter are the same, but
no more rows are decoded than a crop needs. (Faster filters round differently: torch's antialiased interpolation of
uint8 differs by one grey level in some pixels, because its weights have 15 bits and Pillow's 22.)
"""

import math
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, features

from moonshine.images.decoding import decode, resize_shorter_side

RATIOS = (3 / 4, 4 / 3)
"""Aspect ratios that RandomResizedCrop draws from, width over height."""
LOG_RATIOS = np.log(RATIOS)
ATTEMPTS = 10
SEQUENTIAL = (0xC0, 0xC1)
"""Markers of a JPEG's frame header, Huffman-coded and neither progressive nor lossless."""
BEFORE_FRAME = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))
"""Markers of segments that may come first: tables, comments and what applications add."""
MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 0
"""Larger images are left to Pillow: a corrupted size could take all memory."""
DECODED = "RGBX" if features.check("libjpeg_turbo") else "RGB"
"""How the JPEG library writes pixels: as Pillow stores RGB if it can, because Pillow converts any other layout."""

Box = tuple[int, int, int, int]
"""left, top, right, bottom."""


def draw_box(random: np.random.Generator, width: int, height: int, scale: tuple[float, float]) -> Box:
    """The crop of torchvision's RandomResizedCrop: an area fraction from `scale`, a ratio drawn on a log scale."""
    for _ in range(ATTEMPTS):
        area = width * height * random.uniform(*scale)
        ratio = math.exp(random.uniform(*LOG_RATIOS))
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
    encoded: bytes,
    name: str,
    size: int,
    scale: tuple[float, float],
    flip: bool,
    random: np.random.Generator,
    channels: int = 3,
    then: Callable[[Image.Image], Image.Image] | None = None,
) -> np.ndarray:
    """A random crop scaled to (size, size, channels) uint8, flipped horizontally with p = 0.5 if `flip`.

    `then` changes the result once more, before it becomes an array.
    """
    crop = _random_crop(encoded, name, scale, random, channels).resize((size, size), Image.Resampling.BILINEAR)
    mirrored = flip and random.random() < 0.5
    crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop
    return _array(then(crop) if then else crop)


def _array(image: Image.Image) -> np.ndarray:
    """uint8 (height, width, channels), of grey images too."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _random_crop(
    encoded: bytes, name: str, scale: tuple[float, float], random: np.random.Generator, channels: int
) -> Image.Image:
    """The crop; in a usual JPEG nothing below it is decoded, so damage there goes unseen: `prepare` has checked."""
    frame = _frame(encoded) if channels == 3 else None
    if frame is None:
        image = decode(encoded, name, channels)
        return image.crop(draw_box(random, *image.size, scale))
    box = draw_box(random, frame.width, frame.height, scale)
    return _upper_rows(encoded, name, frame, box[3]).crop(box)


class _Frame(NamedTuple):
    """The size in a JPEG's header, and the byte offset of the height."""

    width: int
    height: int
    at: int


def _frame(encoded: bytes) -> _Frame | None:
    """The frame of a sequential JPEG with three components; None for any other image, which is decoded whole.

    Rows of a sequential JPEG don't depend on data more than a row below; a progressive one may be smoothed.
    """
    at = 2
    while encoded.startswith(b"\xff", at) and at + 10 <= len(encoded):
        marker, length = struct.unpack_from(">BH", encoded, at + 1)
        if marker in SEQUENTIAL:
            bits, height, width, components = struct.unpack_from(">BHHB", encoded, at + 4)
            usual = (bits, components) == (8, 3) and 0 < width * height <= MOST_PIXELS
            return _Frame(width, height, at + 5) if usual else None
        if marker not in BEFORE_FRAME:
            return None
        at += 2 + length
    return None


def _upper_rows(encoded: bytes, name: str, frame: _Frame, rows: int) -> Image.Image:
    """At least the first `rows` of an image, decoded with a header that says it ends there."""
    # one more row, because half-resolution colour is interpolated with the colour row below
    height = min(rows + 1, frame.height)
    cut = bytearray(encoded)
    struct.pack_into(">H", cut, frame.at, height)
    image = Image.new("RGB", (frame.width, height), None)  # not blackened first, as by Image.frombytes
    try:
        image.frombytes(cut, "jpeg", DECODED, "")
    except ValueError:
        return decode(encoded, name)  # which reports what is wrong
    return image


def evaluation_pixels(image: Image.Image, name: str, size: int, shorter_side: int) -> np.ndarray:
    """The central (size, size, channels) uint8 of the scaled image, as torchvision's Resize and CenterCrop give it."""
    scaled = resize_shorter_side(image, name, shorter_side)
    left, top = round((scaled.width - size) / 2), round((scaled.height - size) / 2)
    return _array(scaled.crop((left, top, left + size, top + size)))
