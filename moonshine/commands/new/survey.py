"""What a folder of photographs contains, from their headers; whole files are read only to find copies."""

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from moonshine.errors import DataError
from moonshine.images.decoding import UNDECODABLE
from moonshine.images.store import SPLITS
from moonshine.preparation.layouts import ImageFile, Layout
from moonshine.preparation.parquet_shards import stream_images
from moonshine.runtime.cpus import usable_cpus
from moonshine.runtime.progress import Progress

LISTED = 20
"""Files that cannot be used and are named; the rest are only counted."""
SAMPLE = 16
"""Images that are kept to measure how long decoding takes."""
BLOCK = 512
"""Files handed to the threads at a time."""
GREY = ("1", "L", "LA")
"""Pillow's modes of images without colour."""
DEEP = ("I", "F")
"""How Pillow's modes of more than 8 bits per channel begin."""
SUFFIXES = {"JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "MPO": (".jpg", ".jpeg", ".mpo"), "TIFF": (".tif", ".tiff")}
"""Format -> endings of its files' names, if they differ from the format's own name."""
KEEP_EXIF = ("JPEG", "MPO", "PNG", "WEBP")
"""Formats whose orientation is in EXIF and not applied by Pillow."""
TURNED = range(2, 9)
"""EXIF orientations other than the one in which the pixels are stored."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Header:
    """What an image says about itself; only `size` and `problem` are set if it cannot be used."""

    size: int
    """Of the encoded image, in bytes."""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    is_turned: bool = False
    problem: str | None = None
    digest: bytes | None = None
    """sha256 of the content, if that has been read anyway."""


@dataclass(frozen=True)
class Survey:
    """What was found."""

    layout: Layout
    sides: np.ndarray
    """Width and height of each image, shape (images, 2)."""
    formats: Counter[str]
    """Format, with what is unusual about it ("CMYK JPEG", "PNG named .jpg") -> how many."""
    grey: int
    turned: int
    """How many have an EXIF orientation other than the one in which their pixels are stored."""
    sample: Sequence[bytes]
    """A few training images, encoded."""

    @property
    def classes(self) -> list[str]:
        return self.layout.classes

    def images(self, split: str) -> int:
        return len(self.layout.images[split])

    @property
    def is_grey(self) -> bool:
        return self.grey == len(self.sides)

    def shorter_side(self, quantile: float) -> int:
        return int(np.quantile(self.sides.min(axis=1), quantile))

    def aspect_ratio(self, quantile: float) -> float:
        """Longer side over shorter side."""
        return float(np.quantile(self.sides.max(axis=1) / self.sides.min(axis=1), quantile))


def survey(layout: Layout) -> Survey:
    """Look at every image of both splits.

    Raises DataError (exit code 3), with one line for each image that cannot be used, or for an image that is in both
    splits.
    """
    images = [image for split in SPLITS for image in layout.images[split]]
    is_sharded = images[0].row is not None
    headers = _in_shards(images) if is_sharded else list(_in_threads(_header_of_file, images, "images"))
    _require_usable(images, headers)
    training = len(layout.images["train"])
    _require_disjoint(images, headers, training)
    return Survey(
        layout=layout,
        sides=np.array([(header.width, header.height) for header in headers]),
        formats=Counter(_kind(image, header) for image, header in zip(images, headers)),
        grey=sum(header.mode in GREY for header in headers),
        turned=sum(header.is_turned for header in headers),
        sample=_sample(images[:training]),
    )


def _header_of_file(image: ImageFile) -> Header:
    try:
        with Path(image.path).open("rb") as file:
            return _header(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        return Header(0, problem=f"cannot be read ({error.strerror})")


def _in_shards(images: Sequence[ImageFile]) -> list[Header]:
    """The same from Parquet shards, whose images are read in passing; so they are hashed as well."""
    headers: dict[tuple[str, int], Header] = {}
    with warnings.catch_warnings(action="ignore"), Progress("looking", len(images), unit="images") as progress:
        for path in dict.fromkeys(image.path for image in images):
            for row, encoded in enumerate(stream_images(Path(path))):
                digest = hashlib.sha256(encoded).digest()
                headers[path, row] = _header(io.BytesIO(encoded), len(encoded), digest)
                progress.update()
    return [headers[image.path, image.row] for image in images if image.row is not None]


def _header(file: BinaryIO, size: int, digest: bytes | None = None) -> Header:
    try:
        image = Image.open(file)
        is_turned = _orientation(image) in TURNED
    except UnidentifiedImageError:
        return Header(size, problem="not an image that Pillow can read")
    except UNDECODABLE as error:
        return Header(size, problem=str(error))
    if image.mode.startswith(DEEP):
        return Header(size, problem=f"has more than 8 bits per channel (mode {image.mode}); convert it to 8 bits")
    return Header(size, *image.size, image.format or "", image.mode, is_turned, digest=digest)


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation, without reading pixels to find it: Pillow does that for a PNG without EXIF."""
    if image.format not in KEEP_EXIF or "exif" not in image.info:
        return None
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except (*UNDECODABLE, KeyError):
        return None  # damaged EXIF, which nothing needs


def _kind(image: ImageFile, header: Header) -> str:
    name = f"{header.mode} {header.format}" if header.mode == "CMYK" else header.format
    suffix = Path(image.name).suffix.lower()
    is_usual = image.row is not None or suffix in SUFFIXES.get(header.format, (f".{header.format.lower()}",))
    return name if is_usual else f"{name} named {suffix or 'without ending'}"


def _where(image: ImageFile) -> str:
    return image.path if image.row is None else f"{image.path}: row {image.row}"


def _require_usable(images: Sequence[ImageFile], headers: Sequence[Header]) -> None:
    problems = [f"{_where(image)}: {header.problem}" for image, header in zip(images, headers) if header.problem]
    if problems:
        count = f"{len(problems):,} of {len(images):,} files cannot be used"
        more = [f"and {len(problems) - LISTED:,} more"] if len(problems) > LISTED else []
        raise DataError("\n".join([f"{count}; fix, move or delete them:", *problems[:LISTED], *more]))


def _require_disjoint(images: Sequence[ImageFile], headers: Sequence[Header], training: int) -> None:
    """Raise DataError if a validation image is a training image too: networks would be tested on what they learned.

    Only files of equal size can have equal contents, so only those are read.
    """
    sizes_train, sizes_val = ({header.size for header in part} for part in (headers[:training], headers[training:]))
    shared = sizes_train & sizes_val
    candidates = [index for index, header in enumerate(headers) if header.size in shared]
    unread = [index for index in candidates if headers[index].digest is None]
    read = dict(zip(unread, _in_threads(_digest, [images[index] for index in unread], "files of equal size")))
    digests = {index: read.get(index, headers[index].digest) for index in candidates}
    learned = {digest: index for index, digest in digests.items() if index < training}
    copies = [(learned[digest], i) for i, digest in digests.items() if i >= training and digest in learned]
    if copies:
        of_train, of_val = (_where(images[index]) for index in copies[0])
        more = f" ({len(copies):,} such images in all)" if len(copies) > 1 else ""
        raise DataError(
            f"{of_val}: is a copy of the training image {of_train}{more}; networks would be tested on what they "
            "learned: delete one of the two"
        )


def _digest(image: ImageFile) -> bytes:
    try:
        with Path(image.path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"{image.path}: cannot be read ({error.strerror})") from None


def _sample(images: Sequence[ImageFile]) -> list[bytes]:
    """A few images, evenly spread over files, or the first of the first shard."""
    if images[0].row is not None:
        return list(islice(stream_images(Path(images[0].path)), SAMPLE))
    return [Path(image.path).read_bytes() for image in images[:: -(-len(images) // SAMPLE)]]


def _in_threads(look: Callable[[ImageFile], Result], images: Sequence[ImageFile], unit: str) -> Iterator[Result]:
    """The results in order, with progress; threads, because disks and networks make files wait."""
    remaining = iter(images)
    with (
        warnings.catch_warnings(action="ignore"),  # of Pillow, about what is found here
        ThreadPoolExecutor(4 * usable_cpus()) as pool,
        Progress("looking", len(images), unit=unit) as progress,
    ):
        while block := list(islice(remaining, BLOCK)):
            for result in pool.map(look, block):
                yield result
                progress.update()
