"""`moonshine prepare`: make data/<name>/{train.arrow, val.arrow, manifest.json} from a source."""

import dataclasses
import importlib
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image
from sklearn.model_selection import train_test_split

from moonshine.errors import DataError, ParamsError
from moonshine.images.store import SPLITS, write_split
from moonshine.inputs.raw import find_files
from moonshine.params.schema import JPEG_SOURCES, Dataset, Params
from moonshine.preparation.jpeg_store import JpegSource, inspect, write_jpeg_images
from moonshine.preparation.prepared import Prepared
from moonshine.preparation.raw_images import RawImages, list_raw_images
from moonshine.runs.kept_data import KeptData
from moonshine.runs.raw_files import write_record
from moonshine.runtime.cpus import usable_cpus
from moonshine.runtime.files import require_room, write_checked_json
from moonshine.runtime.progress import say

SUBSET_SEED = 0
IMAGENET_NORMALISATION = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""What torchvision's published networks were trained with, so that they fit; per channel, on a 0..1 scale."""
GREY_NORMALISATION = {"mean": [0.449], "std": [0.226]}
"""Means of the above over channels, so that first convolutions summed over colours fit."""


def prepare(params: Params) -> None:
    """Prepare params.dataset; the manifest is written last, so its presence means that everything is there."""
    layout = list_raw_images(params)
    kept = KeptData(params, layout.files if layout else None)
    if not kept.is_complete():
        raw = RawImages(layout, kept.parent) if layout else None
        with kept.written() as folder:
            _write(params, raw, folder)
            if raw:
                write_record(folder, raw.layout.files, kept.raw_stamps, raw.hashes)
    kept.publish()


def _write(params: Params, raw: RawImages | None, folder: Path) -> None:
    settings = params.dataset
    source = importlib.import_module(f"moonshine.sources.{settings.source}")
    is_jpeg = settings.source in JPEG_SOURCES
    rest = _jpeg_images(params, source, raw, folder) if is_jpeg else _small_images(params, source, folder)
    manifest = {"format": 1, "name": settings.name, **rest}
    write_checked_json(folder / "manifest.json", manifest)


def _small_images(params: Params, source: ModuleType, folder: Path) -> dict[str, Any]:
    """Write the splits from memory; returns the rest of the manifest."""
    settings = params.dataset
    prepared: Prepared = source.prepare(settings, find_files(params))
    _check(prepared, settings)
    if settings.training:
        prepared = _subset(prepared, settings.training)
    images = {split: _resized(prepared.images[split], settings.size) for split in SPLITS}
    shape = list(images["train"].shape[1:])
    require_room(folder, sum(array.nbytes for array in images.values()), "the prepared images")
    splits = {}
    for split in SPLITS:
        labels, ids = prepared.labels[split], prepared.ids[split]
        rows = ((image.tobytes(), int(label), id_) for image, label, id_ in zip(images[split], labels, ids))
        splits[split] = write_split(folder, split, rows, images[split][0].size)
        say(f"{folder}: {split}: {len(labels):,} images of {shape} (channels, height, width)")
    mean, std = _normalisation(images["train"])
    return {
        "classes": prepared.classes,
        "encoding": "raw",
        "shape": shape,
        "normalisation": {"mean": mean, "std": std},
        "splits": splits,
        "origin": prepared.origin,
    }


def _jpeg_images(params: Params, source: ModuleType, raw: RawImages | None, folder: Path) -> dict[str, Any]:
    """Write the splits as they stream from the source; returns the rest of the manifest."""
    settings = params.dataset
    images: JpegSource = source.open_source(params, raw)
    _require_as_params_say(settings, len(images.classes), settings.channels)
    if settings.resize is None:
        require_room(folder, images.bytes, "the prepared images")
    workers = usable_cpus() if params.machine.workers is None else params.machine.workers
    assert settings.evaluation is not None
    look = partial(
        inspect,
        resize=settings.resize,
        evaluation=settings.evaluation.resize,
        channels=settings.channels,
        upright=bool(settings.exif_orientation),
    )
    splits = write_jpeg_images(folder, images, look, workers)
    return {
        "classes": images.classes,
        "encoding": "jpeg",
        "shape": [settings.channels, settings.size, settings.size],
        "evaluation": settings.evaluation.model_dump(),
        **({"exif_orientation": True} if settings.exif_orientation else {}),
        "normalisation": IMAGENET_NORMALISATION if settings.channels == 3 else GREY_NORMALISATION,
        "splits": splits,
        "origin": {**images.origin, "resize": settings.resize},
    }


def _subset(prepared: Prepared, count: int) -> Prepared:
    """`count` training images, stratified by class; the validation split stays whole."""
    labels = prepared.labels["train"]
    if count > len(labels):
        raise ParamsError(f"dataset.training: {count}, but there are {len(labels)} training images")
    classes = len(prepared.classes)
    if len(labels) - classes < count < len(labels):
        raise ParamsError(
            f"dataset.training: {count} of {len(labels)} images leave out fewer than there are classes; "
            f"{classes}..{len(labels) - classes} are possible, and {len(labels)}"
        )
    kept = np.arange(len(labels))
    if count < len(labels):
        kept = np.sort(train_test_split(kept, train_size=count, stratify=labels, random_state=SUBSET_SEED)[0])
    return dataclasses.replace(
        prepared,
        images={**prepared.images, "train": prepared.images["train"][kept]},
        labels={**prepared.labels, "train": labels[kept]},
        ids={**prepared.ids, "train": [prepared.ids["train"][index] for index in kept]},
        origin={**prepared.origin, "subset": f"{count} of {len(labels)} training images, seed {SUBSET_SEED}"},
    )


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """(images, channels, height, width) uint8 resized to `size`, by Pillow's bilinear filter, antialiased."""
    if images.shape[2:] == (size, size):
        return images
    planes = images.reshape(-1, *images.shape[2:])
    scaled = [np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(scaled).reshape(*images.shape[:2], size, size)


def _require_as_params_say(settings: Dataset, classes: int, channels: int) -> None:
    """Networks are described from params.yaml, without data, so what it says about the images must be true."""
    for key, expected, found in (("classes", settings.classes, classes), ("channels", settings.channels, channels)):
        if found != expected:
            cure = "; correct it in experiments/ and run `moonshine use` again" if settings.source == "folder" else ""
            raise ParamsError(f"dataset.{key}: {expected}, but {settings.source} has {found}{cure}")


def _check(prepared: Prepared, settings: Dataset) -> None:
    """Check that labels are within the classes, every class is in both splits and no id is used twice."""
    name = settings.name
    _require_as_params_say(settings, len(prepared.classes), prepared.images["train"].shape[1])
    for split in SPLITS:
        labels = prepared.labels[split]
        if labels.min() < 0 or labels.max() >= len(prepared.classes):
            raise DataError(f"{name}: {split}: a label is outside 0..{len(prepared.classes) - 1}")
        absent = sorted(set(range(len(prepared.classes))) - set(labels.tolist()))
        if absent:
            raise DataError(f"{name}: {split}: no image of class {prepared.classes[absent[0]]!r}")
        if len(set(prepared.ids[split])) != len(labels):
            raise DataError(f"{name}: {split}: an id is used twice")


def _normalisation(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of the training pixels, on a 0..1 scale."""
    mean = [float(images[:, channel].mean(dtype=np.float64)) / 255 for channel in range(images.shape[1])]
    std = [float(images[:, channel].std(dtype=np.float64)) / 255 for channel in range(images.shape[1])]
    return [round(value, 6) for value in mean], [round(value, 6) for value in std]
