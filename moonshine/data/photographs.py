"""Photographs of any size, as JPEG bytes, to the fixed uint8 pixels that networks see.

The pixels are those of torchvision's transforms on Pillow images, bit for bit: the same decoder and the same filter
do the work, the decoder on no more rows than a crop needs. (Faster filters round otherwise: torch's antialiased
interpolation of uint8 differs by one grey level in some pixels, for its weights have 15 bits and Pillow's 22.)
"""

import io
import math
import re
import struct
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image

from moonshine.errors import DataError

RATIOS = (3 / 4, 4 / 3)
"""Aspect ratios that RandomResizedCrop draws from, width over height."""
LOG_RATIOS = np.log(RATIOS)
ATTEMPTS = 10
SEQUENTIAL = (0xC0, 0xC1)
"""Markers of a JPEG's frame header, in Huffman codes and neither progressive nor lossless."""
BEFORE_FRAME = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))
"""Markers of segments that may come first: tables, comments and what applications add."""
UNDECODABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    RuntimeError,
    TypeError,
    Image.DecompressionBombError,
)
"""What Pillow raises for damaged images: RuntimeError for AVIF, NotImplementedError for DDS, TypeError for IM."""
DEEP = re.compile(r";16[BLN]$")
"""At the end of Pillow's names for stored pixels of 16 bits per channel; ";16" alone is 16 bits for all channels."""
BITS_PER_SAMPLE, TILE_WIDTH, TILE_LENGTH = 258, 322, 323
"""Tags of TIFF."""
UNSUSPICIOUS = 2**24
"""Pixels that any file may have."""
PIXELS_PER_BYTE = 256
"""Of larger images; photographs have at most some ten, a page that is blank throughout a few hundred and more."""
LONGEST = 65_500
"""Pixels of a side that an image may have once it is scaled, as many as a JPEG: a sliver could take all memory."""
MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 0
"""Of more, Pillow is to judge: a size that rotted could take all memory."""

warnings.filterwarnings("ignore", module="PIL")  # of what is odd in a file; `prepare` records it once
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
    except UNDECODABLE as error:
        reason = str(error).split(" <_io.BytesIO")[0]  # Pillow names the file, which for us is memory
        raise DataError(f"{name}: cannot be decoded ({reason})") from None


def decode_eight_bits(encoded: bytes, name: str) -> Image.Image:
    """As `decode`, for a file that was not prepared: one of more bits a channel or of a made-up size is refused too.

    Of deeper grey images Pillow would clip nearly all to white; of others it drops the lower bits.
    """
    try:
        opened = Image.open(io.BytesIO(encoded))
        pixels, deep = _claimed_pixels(opened), _deeper(opened)
    except UNDECODABLE:
        return decode(encoded, name)  # which tells what is wrong
    if pixels > max(UNSUSPICIOUS, PIXELS_PER_BYTE * len(encoded)):
        raise DataError(f"{name}: claims {pixels:,} pixels in {len(encoded):,} bytes, more than any photograph has")
    image = decode(encoded, name)
    if deep:
        raise DataError(f"{name}: has more than 8 bits a channel ({deep}); convert it to 8 bits")
    return image


def _claimed_pixels(image: Image.Image) -> int:
    """Pixels that are decoded at once: the image, or a tile of a TIFF if that is larger."""
    tags = getattr(image, "tag_v2", {})
    return max(image.width * image.height, tags.get(TILE_WIDTH, 1) * tags.get(TILE_LENGTH, 1))


def _deeper(image: Image.Image) -> str | None:
    """What of an opened file, not loaded yet, says that it has more than 8 bits a channel: its mode or stored pixels.

    Exact for PNG, TIFF, PNM and SGI; Pillow does not tell it of JPEG 2000 and AVIF in colour.
    """
    if image.mode.startswith(("I", "F")):
        return f"mode {image.mode}"
    if (bits := max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (1,)))) > 8:
        return f"{bits} bits in its TIFF header"
    for codec, _, _, stored in getattr(image, "tile", ()):
        mode, *more = stored if isinstance(stored, tuple) else (stored,)
        if codec == "SGI16":
            return codec
        if isinstance(mode, str) and DEEP.search(mode):
            return f"mode {mode}"
        if codec.startswith("ppm") and more and more[0] > 255:  # none for pixels of one bit
            return f"values up to {more[0]}"
    return None


def draw_box(random: np.random.Generator, width: int, height: int, scale: tuple[float, float]) -> Box:
    """The crop of torchvision's RandomResizedCrop: an area share from `scale`, a ratio drawn on a log scale."""
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
    encoded: bytes, name: str, size: int, scale: tuple[float, float], flip: bool, random: np.random.Generator
) -> np.ndarray:
    """A random crop scaled to (size, size, 3) uint8, mirrored every other time where `flip`."""
    crop = _random_crop(encoded, name, scale, random).resize((size, size), Image.Resampling.BILINEAR)
    mirrored = flip and random.random() < 0.5
    return np.asarray(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop)


def _random_crop(encoded: bytes, name: str, scale: tuple[float, float], random: np.random.Generator) -> Image.Image:
    """The crop; of a usual JPEG nothing below it is decoded, so damage there is not seen: `prepare` has looked."""
    frame = _frame(encoded)
    if frame is None:
        image = decode(encoded, name)
        return image.crop(draw_box(random, *image.size, scale))
    box = draw_box(random, frame.width, frame.height, scale)
    return _upper_rows(encoded, name, frame, box[3]).crop(box)


class _Frame(NamedTuple):
    """What the header of a JPEG says of its size, and at which byte it says the height."""

    width: int
    height: int
    at: int


def _frame(encoded: bytes) -> _Frame | None:
    """Of a sequential JPEG of three components; None of any other image, which is decoded whole.

    The rows of a sequential one do not depend on what comes more than a row below; a progressive one may be smoothed.
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
    """At least the first `rows` of an image, decoded as one whose header says that it ends there."""
    # one row more, for colour of half the resolution is interpolated with the row of colour below
    height = min(rows + 1, frame.height)
    cut = encoded[: frame.at] + struct.pack(">H", height) + encoded[frame.at + 2 :]
    try:
        return Image.frombytes("RGB", (frame.width, height), cut, "jpeg", "RGB", "")
    except ValueError:
        return decode(encoded, name)  # which tells what is wrong


def evaluation_pixels(image: Image.Image, name: str, size: int, shorter_side: int) -> np.ndarray:
    """The central (size, size, 3) uint8 of the image scaled to a shorter side, as Resize and CenterCrop give it."""
    scaled = resize_shorter_side(image, name, shorter_side)
    left, top = round((scaled.width - size) / 2), round((scaled.height - size) / 2)
    return np.asarray(scaled.crop((left, top, left + size, top + size)))


def resize_shorter_side(image: Image.Image, name: str, side: int) -> Image.Image:
    """As torchvision's Resize(side) does it; raises as `scaled_size` does."""
    return image.resize(scaled_size(image.size, name, side), Image.Resampling.BILINEAR)


def scaled_size(size: tuple[int, int], name: str, side: int) -> tuple[int, int]:
    """Width and height once the shorter of them is `side`; the longer is rounded down.

    DataError (exit code 3) with the image's name where it becomes longer than LONGEST.
    """
    width, height = (int(side * length / min(size)) for length in size)
    if max(width, height) > LONGEST:
        raise DataError(f"{name}: is {width} x {height} pixels once scaled, more than {LONGEST} on a side; crop it")
    return width, height
