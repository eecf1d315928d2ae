"""Images of any size and format, decoded and scaled by Pillow as torchvision's transforms do it, bit for bit."""

import io
import re
import struct

from PIL import Image

from moonshine.errors import DataError

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


def decode(encoded: bytes, name: str) -> Image.Image:
    """An RGB image of whatever Pillow can read: JPEG in RGB, grey or CMYK, PNG; EXIF is ignored.

    DataError (exit code 3) with the image's name if it cannot be decoded to its end.
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
        raise DataError(f"{name}: has more than 8 bits per channel ({deep}); convert it to 8 bits")
    return image


def _claimed_pixels(image: Image.Image) -> int:
    """Pixels that are decoded at once: the image, or a tile of a TIFF if that is larger."""
    tags = getattr(image, "tag_v2", {})
    return max(image.width * image.height, tags.get(TILE_WIDTH, 1) * tags.get(TILE_LENGTH, 1))


def _deeper(image: Image.Image) -> str | None:
    """What of an opened file, not loaded yet, says that it has more than 8 bits per channel: its mode or stored pixels.

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


def resize_shorter_side(image: Image.Image, name: str, side: int) -> Image.Image:
    """As torchvision's Resize(side) does it; raises as `scaled_size` does."""
    return image.resize(scaled_size(image.size, name, side), Image.Resampling.BILINEAR)


def scaled_size(size: tuple[int, int], name: str, side: int) -> tuple[int, int]:
    """Width and height once the shorter of them is `side`; the longer is rounded down.

    DataError (exit code 3) with the image's name if it becomes longer than LONGEST.
    """
    width, height = (int(side * length / min(size)) for length in size)
    if max(width, height) > LONGEST:
        raise DataError(f"{name}: is {width} x {height} pixels once scaled, more than {LONGEST} on a side; crop it")
    return width, height
