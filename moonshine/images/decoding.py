"""Images of any size and format, decoded and scaled by Pillow as torchvision's transforms do, bit for bit."""

import io
import re
import struct
import warnings

from PIL import ExifTags, Image

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
"""Ending of Pillow's names for pixels stored with 16 bits per channel; ";16" alone is 16 bits for all channels."""
BITS_PER_SAMPLE, TILE_WIDTH, TILE_LENGTH = 258, 322, 323
"""TIFF tags."""
UNSUSPICIOUS = 2**24
"""Pixels that a file of any size may have."""
PIXELS_PER_BYTE = 256
"""For larger images; photographs have about ten at most, an entirely blank page a few hundred or more."""
LONGEST = 65_500
"""Most pixels per side of an image once it is scaled, as for JPEG: a very thin image could take all memory."""
MODES = {1: "L", 3: "RGB"}
"""Number of channels -> Pillow's mode."""
ORIENTATION = ExifTags.Base.Orientation
KEEP_EXIF = ("JPEG", "MPO", "PNG", "WEBP")
"""Formats whose pixels Pillow leaves as they are stored; it turns TIFF."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the stored pixels upright, for those that are not upright."""
BROKEN_EXIF = (SyntaxError, ValueError, OSError, EOFError, KeyError, TypeError, struct.error)
"""What Pillow raises for it."""


def decode(encoded: bytes, name: str, channels: int = 3) -> Image.Image:
    """An RGB image, or a grey one for one channel, from anything Pillow can read: JPEG in RGB, grey or CMYK, PNG.

    EXIF is ignored. DataError (exit code 3) with the image's name if it cannot be decoded to its end.
    """
    mode = MODES[channels]
    try:
        image = Image.open(io.BytesIO(encoded))
        if image.mode != mode:
            return image.convert(mode)
        image.load()  # convert() would copy it
        return image
    except UNDECODABLE as error:
        reason = str(error).split(" <_io.BytesIO")[0]  # Pillow names the file, here a memory buffer
        raise DataError(f"{name}: cannot be decoded ({reason})") from None


def orientation(image: Image.Image) -> int | None:
    """The EXIF orientation of an opened image whose pixels Pillow does not turn by itself; raises BROKEN_EXIF."""
    found: int | None = image.getexif().get(ORIENTATION) if image.format in KEEP_EXIF else None
    return found


def turn_upright(image: Image.Image, encoded: bytes) -> Image.Image:
    """`image`, decoded from `encoded`, as it was held in front of the camera; broken EXIF counts as none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever decoded it has seen them
        try:
            turn = UPRIGHT.get(orientation(Image.open(io.BytesIO(encoded))) or 0)
        except BROKEN_EXIF:
            turn = None
    return image if turn is None else image.transpose(turn)


def decode_eight_bits(encoded: bytes, name: str, channels: int = 3) -> Image.Image:
    """Like `decode`, for files that were not prepared: more bits per channel or a made-up size is refused too.

    Pillow would clip nearly all of a deeper grey image to white; in other images it drops the lower bits.
    """
    try:
        opened = Image.open(io.BytesIO(encoded))
        pixels, deep = _claimed_pixels(opened), _deeper(opened)
    except UNDECODABLE:
        return decode(encoded, name, channels)  # which reports what is wrong
    if pixels > max(UNSUSPICIOUS, PIXELS_PER_BYTE * len(encoded)):
        raise DataError(f"{name}: claims {pixels:,} pixels in {len(encoded):,} bytes, more than any photograph has")
    image = decode(encoded, name, channels)
    if deep:
        raise DataError(f"{name}: has more than 8 bits per channel ({deep}); convert it to 8 bits")
    return image


def _claimed_pixels(image: Image.Image) -> int:
    """Pixels that are decoded at once: the image, or a tile of a TIFF if that is larger."""
    tags = getattr(image, "tag_v2", {})
    return max(image.width * image.height, tags.get(TILE_WIDTH, 1) * tags.get(TILE_LENGTH, 1))


def _deeper(image: Image.Image) -> str | None:
    """What shows that an opened file, not loaded yet, has more than 8 bits per channel: its mode or stored pixels.

    Exact for PNG, TIFF, PNM and SGI; Pillow does not report it for JPEG 2000 and AVIF in colour.
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
        if codec.startswith("ppm") and more and more[0] > 255:  # empty for one-bit pixels
            return f"values up to {more[0]}"
    return None


def resize_shorter_side(image: Image.Image, name: str, side: int) -> Image.Image:
    """As torchvision's Resize(side) does; raises what `scaled_size` does."""
    return image.resize(scaled_size(image.size, name, side), Image.Resampling.BILINEAR)


def scaled_size(size: tuple[int, int], name: str, side: int) -> tuple[int, int]:
    """Width and height once the shorter of them is `side`; the longer is rounded down.

    DataError (exit code 3) with the image's name if the longer becomes more than LONGEST.
    """
    width, height = (int(side * length / min(size)) for length in size)
    if max(width, height) > LONGEST:
        raise DataError(f"{name}: is {width} x {height} pixels once scaled, more than {LONGEST} on a side; crop it")
    return width, height
