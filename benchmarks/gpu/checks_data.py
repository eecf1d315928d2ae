"""Checks of what the loaders hand over on the device."""

import tempfile
from pathlib import Path

import torch

from benchmarks import loader
from benchmarks.gpu.experiment import Experiment, last_line
from benchmarks.gpu.machine import Context
from benchmarks.gpu.subjects import CROPS, relative_error
from moonshine.data.jpeg_images import Batch, JpegImages
from moonshine.data.loading import Images, SmallImages
from moonshine.data.order import epoch_order
from moonshine.params.schema import Augmentation

IMAGES, BATCH, WORKERS = 24, 10, 3
ROUNDING = 1e-6
"""Largest relative difference of normalised pixels from the CPU's."""


def images(context: Context) -> None:
    """The same batches as on the CPU, by no or several workers, in channels last and from pinned memory."""
    with tempfile.TemporaryDirectory() as root:
        photographs = Path(root) / "photographs"
        loader.write_jpeg_images(photographs, IMAGES)
        data = loader.prepare(Path(root) / "prepared", photographs, None)
        expected = _batches(JpegImages(data, "train", torch.device("cpu"), 0), CROPS)
        for workers in (0, WORKERS):
            split = JpegImages(data, "train", context.device, workers)
            found = _batches(split, CROPS)
            _require_same(context, f"JPEG images, {workers} workers", found, expected)
            is_last = all(pixels.is_contiguous(memory_format=torch.channels_last) for pixels, _ in found)
            context.report.require(is_last, f"JPEG images, {workers} workers, are channels last")
        if context.on_gpu:
            order = epoch_order(0, 1, len(split)).split(BATCH)
            is_pinned = all(pixels.is_pinned() for pixels in split.training_pixels(CROPS, 0, 1, order))
            context.report.require(is_pinned, "JPEG images come in pinned memory")
    _small_images(context)


def _small_images(context: Context) -> None:
    settings = Augmentation(pad=1, flip=True)
    with tempfile.TemporaryDirectory() as root:
        experiment = Experiment(context, Path(root) / "digits")
        code, errors = experiment.run("prepare")
        if code:
            raise RuntimeError(f"moonshine prepare: exit {code}: {last_line(errors)}")
        data = experiment.folder / "data/digits"
        expected = _batches(SmallImages(data, "train", torch.device("cpu")), settings, 500)
        found = _batches(SmallImages(data, "train", context.device), settings, 500)
    _require_same(context, "small images", found, expected)


def _batches(split: Images, settings: Augmentation, size: int = BATCH) -> list[Batch]:
    return list(split.training_batches(settings, 0, 1, size))


def _require_same(context: Context, name: str, found: list[Batch], expected: list[Batch]) -> None:
    are_labels_same = len(found) == len(expected) and all(
        torch.equal(labels.cpu(), others) for (_, labels), (_, others) in zip(found, expected)
    )
    error = max(relative_error(pixels, others) for (pixels, _), (others, _) in zip(found, expected))
    text = f"{len(found)} batches, pixels {error:.1e} from the CPU's (limit {ROUNDING:g})"
    context.report.require(are_labels_same and error <= ROUNDING, f"{name}: the CPU's batches", text)
