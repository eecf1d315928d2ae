"""ILSVRC2012, 1,281,167 + 50,000 JPEG images of 1,000 classes, from the three archives as published or unpacked.

Without `dataset.files`, they are in one of the layouts of moonshine/preparation/imagenet_layouts.py.

The training archive holds one tar per class, named by its WordNet id (wnid); the validation archive is flat; the devkit
has the classes, how many training images each has, and the labels of the validation images. Labels number the wnids in
alphabetical order, as torchvision does, so that published networks fit.

Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from moonshine.errors import DataError
from moonshine.inputs.archives import LARGEST_TAR, members, read_members
from moonshine.inputs.raw import RawFile, find_files
from moonshine.params.schema import Params
from moonshine.preparation.jpeg_store import JpegImage, JpegSource
from moonshine.preparation.raw_images import RawImages

DEVKIT = "ILSVRC2012_devkit_t12/data"
SYNSETS, TRUTH = f"{DEVKIT}/meta.mat", f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt"
VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


@dataclass(frozen=True)
class Devkit:
    """What the devkit contains, by label."""

    wnids: list[str]
    words: list[str]
    train_counts: list[int]
    validation_labels: list[int]
    """The label of validation image number 1, 2, ..."""


def open_source(params: Params, raw: RawImages | None) -> JpegSource:
    """The archives, ready to be streamed, or the images in `raw`; only the devkit is read here."""
    if raw:
        return _unpacked(raw)
    files = find_files(params)
    devkit = read_devkit(files["devkit"])
    validation_counts = np.bincount(devkit.validation_labels, minlength=len(devkit.wnids)).tolist()
    return JpegSource(
        classes=devkit.wnids,
        splits={"train": _train(files["train"], devkit), "val": _validation(files["validation"], devkit)},
        counts={"train": devkit.train_counts, "val": validation_counts},
        bytes=files["train"].path.stat().st_size + files["validation"].path.stat().st_size,
        origin={
            "source": "ILSVRC2012",
            "checksums": {role: file.checksum for role, file in files.items()},
            "words": devkit.words,
        },
    )


def _unpacked(raw: RawImages) -> JpegSource:
    layout = raw.layout
    raw.origin["source"] = "ILSVRC2012"
    if layout.words:
        raw.origin["words"] = layout.words
    return JpegSource(
        classes=layout.classes,
        splits={split: raw.split(split, all_jpeg=True) for split in layout.images},
        counts={split: layout.counts(split) for split in layout.images},
        bytes=layout.bytes,
        origin=raw.origin,
    )


def read_devkit(file: RawFile) -> Devkit:
    """The classes, which are the synsets without children, in the order of their wnids."""
    content = read_members(file, [SYNSETS, TRUTH])
    try:
        table = loadmat(io.BytesIO(content[SYNSETS]), squeeze_me=True)["synsets"]
        leaves = sorted((row for row in table if row["num_children"] == 0), key=lambda row: str(row["WNID"]))
        label_of = {int(row["ILSVRC2012_ID"]): label for label, row in enumerate(leaves)}
        labels = [label_of[int(line)] for line in content[TRUTH].decode().split()]
    except (MatReadError, KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{file.path}: not the devkit of ILSVRC2012 ({error!r}); get it again") from None
    return Devkit(
        wnids=[str(row["WNID"]) for row in leaves],
        words=[str(row["words"]) for row in leaves],
        train_counts=[int(row["num_train_images"]) for row in leaves],
        validation_labels=labels,
    )


def _train(file: RawFile, devkit: Devkit) -> Iterator[JpegImage]:
    label_of = {wnid: label for label, wnid in enumerate(devkit.wnids)}
    with file.stream() as archive:
        for name, tar in members(archive, file.path, compressed=False, largest=LARGEST_TAR):
            wnid = name.removesuffix(".tar")
            if wnid not in label_of:
                raise DataError(f"{file.path}: {name!r} is not the tar of a class; get the archive again")
            for image, content in members(tar, f"{file.path}: {name}", compressed=False):
                if not re.fullmatch(rf"{wnid}_\d+\.JPEG", image):
                    raise DataError(
                        f"{file.path}: {name}: {image!r} is not an image of the class; get the archive again"
                    )
                yield JpegImage(content.read(), label_of[wnid], image.removesuffix(".JPEG"))


def _validation(file: RawFile, devkit: Devkit) -> Iterator[JpegImage]:
    with file.stream() as archive:
        for name, content in members(archive, file.path, compressed=False):
            match = VALIDATION_NAME.fullmatch(name)
            number = int(match[1]) if match else 0
            if not 1 <= number <= len(devkit.validation_labels):
                raise DataError(f"{file.path}: {name!r} is not a validation image; get the archive again")
            yield JpegImage(content.read(), devkit.validation_labels[number - 1], name.removesuffix(".JPEG"))
