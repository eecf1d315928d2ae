"""Photographs of one's own: train/ and val/ in machine.raw_data.folder, each with a folder a class.

Labels count the classes in the order of their names. Files beside the folders are not looked at, nor are hidden ones
and those that Windows leaves where pictures were looked at; every other file in a class's folder is an image.
"""

from collections.abc import Iterator
from pathlib import Path

from moonshine import signals
from moonshine.data.photograph_store import Photograph, PhotographSource
from moonshine.data.raw import raw_folder
from moonshine.errors import DataError
from moonshine.params.schema import Params

JPEG_SUFFIXES = (".jpg", ".jpeg")
LEFT_BY_WINDOWS = ("thumbs.db", "desktop.ini")


def open_source(params: Params) -> PhotographSource:
    """The folders, listed; images are read as they are written."""
    root = raw_folder(params)
    classes = {split: [path.name for path in _visible(root / split) if path.is_dir()] for split in ("train", "val")}
    for split, other in (("train", "val"), ("val", "train")):
        if absent := sorted(set(classes[other]) - set(classes[split])):
            raise DataError(f"{root / split}: has no class {absent[0]!r}, {root / other} has; both need the same ones")
    images = {split: [_visible(root / split / name) for name in classes["train"]] for split in classes}
    for split, of_classes in images.items():
        if empty := [name for name, paths in zip(classes["train"], of_classes) if not paths]:
            raise DataError(f"{root / split / empty[0]}: no image in it; every class needs some")
    every = [path for of_classes in images.values() for paths in of_classes for path in paths]
    return PhotographSource(
        classes=classes["train"],
        splits={split: _split(root / split, of_classes) for split, of_classes in images.items()},
        counts={split: [len(paths) for paths in of_classes] for split, of_classes in images.items()},
        bytes=sum(path.stat().st_size for path in every),
        origin={"source": "folder"},
    )


def _visible(folder: Path) -> list[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None
    for path in paths:
        try:
            path.name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{str(path)!r}: its name is not UTF-8; rename it") from None
    return [path for path in paths if path.name.lower() not in LEFT_BY_WINDOWS]


def _split(folder: Path, images: list[list[Path]]) -> Iterator[Photograph]:
    for label, paths in enumerate(images):
        for path in paths:
            signals.poll("nothing half-made is left, run the same command again")
            try:
                encoded = path.read_bytes()
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from None
            yield Photograph(encoded, label, str(path.relative_to(folder)), path.suffix.lower() in JPEG_SUFFIXES)
