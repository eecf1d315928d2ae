"""`moonshine prepare`: make data/<name>/{train.arrow, val.arrow, manifest.json} from a source."""

import dataclasses
import importlib

import numpy as np
from PIL import Image
from sklearn.model_selection import train_test_split

from moonshine import artefacts
from moonshine.data.prepared import Prepared
from moonshine.data.raw import find_files
from moonshine.data.store import SPLITS, write_split
from moonshine.errors import DataError, ParamsError
from moonshine.files import require_room, write_checked_json
from moonshine.locks import hold_lock
from moonshine.params.schema import Dataset, Params
from moonshine.progress import say

SUBSET_SEED = 0


def prepare(params: Params) -> None:
    """Prepare params.dataset; the manifest is written last, so that its presence means that all is there."""
    settings = params.dataset
    folder = artefacts.data_folder(settings.name)
    hold_lock(artefacts.RUNS / "prepare" / settings.name)
    source = importlib.import_module(f"moonshine.data.sources.{settings.source}")
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
    manifest = {
        "format": 1,
        "name": settings.name,
        "classes": prepared.classes,
        "encoding": "raw",
        "shape": shape,
        "normalisation": {"mean": mean, "std": std},
        "splits": splits,
        "origin": prepared.origin,
    }
    write_checked_json(artefacts.manifest(settings.name), manifest)


def _subset(prepared: Prepared, count: int) -> Prepared:
    """`count` training images, each class in its share; the validation split stays whole."""
    labels = prepared.labels["train"]
    if count > len(labels):
        raise ParamsError(f"dataset.training: {count}, but there are {len(labels)} training images")
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
    """(images, channels, height, width) uint8 at another side, by Pillow's bilinear filter, antialiased."""
    if images.shape[2:] == (size, size):
        return images
    planes = images.reshape(-1, *images.shape[2:])
    scaled = [np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(scaled).reshape(*images.shape[:2], size, size)


def _check(prepared: Prepared, settings: Dataset) -> None:
    """What params.yaml says of the images, from which networks are described without data, must be true."""
    name = settings.name
    for key, found in (("classes", len(prepared.classes)), ("channels", prepared.images["train"].shape[1])):
        if getattr(settings, key) != found:
            raise ParamsError(f"dataset.{key}: {getattr(settings, key)}, but {settings.source} has {found}")
    for split in SPLITS:
        labels = prepared.labels[split]
        if labels.min() < 0 or labels.max() >= len(prepared.classes):
            raise DataError(f"{name}: {split}: a label lies outside 0..{len(prepared.classes) - 1}")
        absent = sorted(set(range(len(prepared.classes))) - set(labels.tolist()))
        if absent:
            raise DataError(f"{name}: {split}: no image of class {prepared.classes[absent[0]]!r}")
        if len(set(prepared.ids[split])) != len(labels):
            raise DataError(f"{name}: {split}: an id is used twice")


def _normalisation(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of the training pixels, on the scale 0..1."""
    mean = [float(images[:, channel].mean(dtype=np.float64)) / 255 for channel in range(images.shape[1])]
    std = [float(images[:, channel].std(dtype=np.float64)) / 255 for channel in range(images.shape[1])]
    return [round(value, 6) for value in mean], [round(value, 6) for value in std]
