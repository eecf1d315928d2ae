"""Your own images: train/ and val/ in machine.raw_data.folder, each with a folder per class.

Labels number the classes in the order of their names. Files next to the folders are ignored, as are hidden files and
those that Windows leaves in folders of pictures; every other file in a class's folder is an image.

The manifest has the number of images in each split and the sha256 of what `sha256sum` prints for them in order, so
that two states of the folder can be told apart.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unicodedata import normalize

from moonshine.errors import DataError
from moonshine.inputs.raw import raw_folder
from moonshine.params.schema import Params
from moonshine.preparation.jpeg_store import JpegImage, JpegSource
from moonshine.runtime import signals
from moonshine.runtime.progress import printable

JPEG_SUFFIXES = (".jpg", ".jpeg")
LEFT_BY_WINDOWS = ("thumbs.db", "desktop.ini")


def open_source(params: Params) -> JpegSource:
    """The folders, listed; images are read only while they are written."""
    root = raw_folder(params)
    classes = {split: _classes(root / split) for split in ("train", "val")}
    for split, other in (("train", "val"), ("val", "train")):
        if absent := sorted(set(classes[other]) - set(classes[split])):
            why = _spelt_otherwise(absent[0], classes[split]) or f"{root / other} has; both need the same ones"
            raise DataError(f"{root / split}: has no class {absent[0]!r}, {why}")
    images = {split: [_images(root / split / name) for name in classes["train"]] for split in classes}
    for split, of_classes in images.items():
        if empty := [name for name, sizes in zip(classes["train"], of_classes) if not sizes]:
            raise DataError(f"{root / split / empty[0]}: no image in it; every class needs some")
    counts = {split: [len(sizes) for sizes in of_classes] for split, of_classes in images.items()}
    # prepare reads it once all images are written; by then _split has added their hash
    origin: dict[str, Any] = {"source": "folder", **{split: {"images": sum(counts[split])} for split in counts}}
    return JpegSource(
        classes=classes["train"],
        splits={split: _split(root / split, of_classes, origin[split]) for split, of_classes in images.items()},
        counts=counts,
        bytes=sum(size for of_classes in images.values() for sizes in of_classes for size in sizes.values()),
        origin=origin,
    )


def _spelt_otherwise(name: str, others: list[str]) -> str | None:
    """How two names that look the same differ: macOS writes accents as separate characters."""
    for other in others:
        if normalize("NFC", other) == normalize("NFC", name):
            return f"but {other!a}, which differs from {name!a} only in Unicode normalisation; rename one of them"
    return None


def _classes(folder: Path) -> list[str]:
    return [path.name for path, status in _visible(folder) if stat.S_ISDIR(status.st_mode)]


def _images(folder: Path) -> dict[Path, int]:
    """The images of a class and their sizes."""
    sizes = {}
    for path, status in _visible(folder):
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
            raise DataError(f"{path}: not a regular file; remove it")
        sizes[path] = status.st_size
    return sizes


def _visible(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The visible entries of a folder, with links followed."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None
    for path in paths:
        try:
            path.name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{str(path)!r}: its name is not UTF-8; rename it") from None
        if printable(path.name) != path.name:
            raise DataError(f"{printable(str(path))}: its name has control characters; rename it")
        if path.name.lower() in LEFT_BY_WINDOWS:
            continue
        try:
            yield path, path.stat()
        except OSError as error:
            what = f"a link to {path.readlink()}, which" if path.is_symlink() else "it"
            raise DataError(f"{path}: {what} cannot be read ({error.strerror}); fix or remove it") from None


def _split(folder: Path, images: list[dict[Path, int]], about: dict[str, Any]) -> Iterator[JpegImage]:
    """The images; once all are read, their hash is in `about`."""
    listing = hashlib.sha256()
    for label, paths in enumerate(images):
        for path in paths:
            signals.poll("nothing half-made is left, run the same command again")
            try:
                encoded = path.read_bytes()
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from None
            name = str(path.relative_to(folder))
            listing.update(f"{hashlib.sha256(encoded).hexdigest()}  {name}\n".encode())
            yield JpegImage(encoded, label, name, path.suffix.lower() in JPEG_SUFFIXES)
    about["sha256"] = listing.hexdigest()
