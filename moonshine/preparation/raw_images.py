"""The images of a data set whose files no checksum pins, listed and then read once, in order."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from moonshine.errors import DataError
from moonshine.images.store import SPLITS, read_manifest
from moonshine.inputs.raw import raw_folder
from moonshine.params.schema import Params
from moonshine.preparation.imagenet_layouts import find_imagenet
from moonshine.preparation.jpeg_store import JpegImage
from moonshine.preparation.layouts import ImageFile, Layout, find_layout
from moonshine.preparation.parquet_shards import stream_images
from moonshine.project import artefacts
from moonshine.runs.raw_files import changed_files
from moonshine.runtime import signals
from moonshine.runtime.progress import say

JPEG_SUFFIXES = (".jpg", ".jpeg")


def list_raw_images(params: Params) -> Layout | None:
    """The images as they are in machine.raw_data now; None if checksums in params.yaml pin the files they come from.

    Raises DataError (exit code 3) if they cannot be prepared, ParamsError (2) if machine.raw_data lacks the source.
    """
    settings = params.dataset
    if settings.source == "folder":
        return find_layout(raw_folder(params), settings.validation_share, labels=settings.labels)
    if settings.source == "imagenet" and settings.files is None:
        return find_imagenet(raw_folder(params))
    return None


def raw_changes(params: Params) -> str | None:
    """One line about what changed in machine.raw_data since data/<dataset> was prepared, with what to run; or None.

    Nothing is known if nothing is prepared, if the raw folder is not on this machine, or if checksums pin the files.
    After `dvc pull`, only the number of images is compared.
    """
    settings = params.dataset
    manifest, folder = artefacts.manifest(settings.name), artefacts.data_folder(settings.name)
    if (
        settings.source not in params.machine.raw_data
        or not manifest.exists()
        or not (root := raw_folder(params)).is_dir()
    ):
        return None
    try:
        layout = list_raw_images(params)
    except DataError as error:
        return f"{error}; {folder} was prepared before that"
    if layout is None:
        return None
    found = changed_files(settings.name, layout.files)
    if found is None:
        origin = read_manifest(folder)["origin"]
        counts = {split: (origin.get(split, {}).get("images"), len(layout.images[split])) for split in SPLITS}
        found = ", ".join(
            f"{split} has {now:,} images, not {then:,}" for split, (then, now) in counts.items() if then and then != now
        )
    if not found:
        return None
    cure = "run `moonshine prepare && moonshine sync`"
    if len(layout.classes) != settings.classes:
        classes = f"set dataset.classes, which is {settings.classes}, to {len(layout.classes)} in experiments/"
        cure = f"{classes}, run `moonshine use` again, and then {cure.removeprefix('run ')}"
    return f"{root}: {found} since {folder} was prepared; {cure}"


@dataclass
class RawImages:
    """Reads the images of a layout. `scratch` is a folder on a disk with room for the images of a split."""

    layout: Layout
    scratch: Path
    hashes: dict[str, bytes] = field(default_factory=dict)
    """sha256 of each file that is one image, by its path, once it has been read."""
    origin: dict[str, Any] = field(default_factory=dict)
    """For each split, the number of images and, once all are read, the sha256 of what `sha256sum` prints for them."""
    _seen: dict[str, dict[bytes, str]] = field(default_factory=lambda: {split: {} for split in SPLITS})

    def __post_init__(self) -> None:
        self.origin |= {split: {"images": len(self.layout.images[split])} for split in SPLITS}

    def split(self, split: str, all_jpeg: bool = False) -> Iterator[JpegImage]:
        """The images of a split, in order; those that cannot be read have a problem instead of content.

        `all_jpeg`: every image claims to be a JPEG, not only those whose names end so.
        """
        listing, images = hashlib.sha256(), self.layout.images[split]
        for image, (encoded, problem) in zip(images, self._contents(images)):
            signals.poll("nothing half-made is left, run the same command again")
            if not problem:
                digest = hashlib.sha256(encoded)
                listing.update(f"{digest.hexdigest()}  {image.name}\n".encode())
                self._seen[split].setdefault(digest.digest(), image.name)
                if image.row is None:
                    self.hashes[image.path] = digest.digest()
            is_jpeg = all_jpeg or image.name.lower().endswith(JPEG_SUFFIXES)
            yield JpegImage(encoded, image.label, image.name, is_jpeg, problem)
        self.origin[split]["sha256"] = listing.hexdigest()

    def require_no_leak(self) -> None:
        """DataError (exit code 3) if an image of one content is in both splits, which have been read."""
        train, val = (self._seen[split] for split in SPLITS)
        if both := [digest for digest in val if digest in train]:
            more = f", and {len(both) - 1:,} more images are in both" if len(both) > 1 else ""
            raise DataError(
                f"train: {train[both[0]]} and val: {val[both[0]]} have the same content{more}; remove them from one "
                "split, because errors on images that were trained on mean nothing"
            )

    def _contents(self, images: list[ImageFile]) -> Iterator[tuple[bytes, str | None]]:
        """The encoded image, or why it cannot be read."""
        if not images or images[0].row is None:
            yield from map(_read, images)
        elif all(_place(one) < _place(other) for one, other in pairwise(images)):
            yield from ((encoded, None) for _, encoded in _rows(enumerate(images)))
        else:
            yield from ((encoded, None) for encoded in self._sorted(images))

    def _sorted(self, images: list[ImageFile]) -> Iterator[bytes]:
        """Images whose shards are in another order, by way of a file: to find one in its shard takes too long."""
        say(f"{self.scratch}: copies {len(images):,} shuffled images there first, to read them in order")
        in_shards = sorted(enumerate(images), key=lambda numbered: _place(numbered[1]))
        starts, lengths = np.zeros(len(images), np.int64), np.zeros(len(images), np.int64)
        with TemporaryFile(dir=self.scratch) as file:
            for position, encoded in _rows(in_shards):
                signals.poll("nothing half-made is left, run the same command again")
                starts[position], lengths[position] = file.tell(), len(encoded)
                file.write(encoded)
            file.flush()
            for start, length in zip(starts.tolist(), lengths.tolist()):
                yield os.pread(file.fileno(), length, start)


def _place(image: ImageFile) -> tuple[str, int]:
    assert image.row is not None
    return image.path, image.row


def _read(image: ImageFile) -> tuple[bytes, str | None]:
    try:
        return Path(image.path).read_bytes(), None
    except OSError as error:
        return b"", f"cannot be read ({error.strerror})"


def _rows(images: Iterable[tuple[int, ImageFile]]) -> Iterator[tuple[int, bytes]]:
    """The content of images that are in the order of shards and rows, with the number given to each."""
    for shard, numbered in groupby(images, key=lambda each: each[1].path):
        wanted = {image.row: number for number, image in numbered}
        for row, encoded in enumerate(stream_images(Path(shard))):
            if row in wanted:
                yield wanted[row], encoded
