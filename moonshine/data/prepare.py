"""`moonshine prepare`: make data/<name>/{train.arrow, val.arrow, manifest.json} from a source."""

import importlib

import numpy as np

from moonshine import artefacts
from moonshine.data.prepared import Prepared
from moonshine.data.store import SPLITS, write_split
from moonshine.errors import DataError, ParamsError
from moonshine.files import write_json
from moonshine.params.schema import Dataset, Params
from moonshine.progress import say


def prepare(params: Params) -> None:
    """Prepare params.dataset; the manifest is written last, so that its presence means that all is there."""
    settings = params.dataset
    folder = artefacts.data_folder(settings.name)
    source = importlib.import_module(f"moonshine.data.{settings.source}")
    prepared: Prepared = source.prepare(settings)
    _check(prepared, settings)
    train = prepared.images["train"]
    splits = {}
    for split in SPLITS:
        images, labels, ids = prepared.images[split], prepared.labels[split], prepared.ids[split]
        rows = ((image.tobytes(), int(label), id_) for image, label, id_ in zip(images, labels, ids))
        splits[split] = write_split(folder, split, rows, train[0].size)
        say(f"{folder}: {split}: {len(images):,} images of {list(train.shape[1:])} (channels, height, width)")
    mean, std = _normalisation(train)
    manifest = {
        "format": 1,
        "name": settings.name,
        "classes": prepared.classes,
        "encoding": "raw",
        "shape": list(train.shape[1:]),
        "normalisation": {"mean": mean, "std": std},
        "splits": splits,
        "origin": prepared.origin,
    }
    write_json(artefacts.manifest(settings.name), manifest)


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
