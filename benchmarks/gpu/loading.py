"""Speed of what feeds the device: decoding by workers, transfer, whole epochs, and decoding on the GPU."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import loader
from benchmarks.gpu.machine import Context
from benchmarks.gpu.speeds import CLASSES, COMPARED, TEACHER
from benchmarks.gpu.subjects import BFLOAT16, CROPS, make_state, make_teacher
from benchmarks.gpu.timing import memory_permitting, speed_scale, time_calls, wait_for
from moonshine.data.augmentation import to_device
from moonshine.data.jpeg_images import JpegImages
from moonshine.data.normalisation import Normalisation
from moonshine.data.order import epoch_order
from moonshine.images.store import Split
from moonshine.runtime.cpus import usable_cpus

RESIZES = (None, 256)
"""Shorter side to which images are scaled when they are prepared; None for as they are."""
ENOUGH = 2_000_000
"""Images of an epoch that no measurement gets to the end of."""


def loading(context: Context) -> None:
    """JPEG images per second: loaded by some workers, trained on from end to end, and decoded by nvJPEG."""
    count, seconds = (16, 1.0) if context.tiny else (128, 10.0)
    cpus = usable_cpus()
    with tempfile.TemporaryDirectory() as root:
        photographs = Path(root) / "photographs"
        loader.write_jpeg_images(photographs, count)
        for resize in RESIZES:
            data = loader.prepare(Path(root) / f"resize-{resize}", photographs, resize)
            how = "as they are" if resize is None else f"resized to {resize}"
            for workers in sorted({min(4, cpus), min(8, cpus), cpus}):
                rate = _rate(context, data, workers, seconds, lambda images, labels: None)
                name = f"loading, images {how}, {workers} workers"
                context.report.speed(name, f"{rate:.0f} images/s", images_per_second=rate, workers=workers)
            for student in COMPARED[:1] if context.tiny else COMPARED:
                with memory_permitting(context, f"end to end, {student} AT"):
                    _end_to_end(context, data, student, seconds, how)
            _nvjpeg(context, data, how)
        _transfer(context, data)


def _end_to_end(context: Context, data: Path, student: str, seconds: float, how: str) -> None:
    of_teacher = make_teacher(TEACHER, context.device, BFLOAT16, classes=CLASSES)
    state = make_state(student, context.device, BFLOAT16, classes=CLASSES)
    learn: Learn = lambda images, labels: state.step(images, labels, of_teacher(images))  # noqa: E731
    rate = _rate(context, data, usable_cpus(), seconds, learn)
    name = f"end to end, {student} AT, images {how}, {usable_cpus()} workers"
    context.report.speed(name, f"{rate:.0f} images/s", images_per_second=rate, workers=usable_cpus())


Learn = Callable[[torch.Tensor, torch.Tensor], None]


def _rate(context: Context, data: Path, workers: int, seconds: float, learn: Learn) -> float:
    """Images per second on the device, in the long run: from when all workers have filled their queues twice."""
    source, seen, begin = _endless(context, data, workers), 0, 0.0
    for number, (images, labels) in enumerate(source):
        learn(images, labels)
        seen += len(labels)
        if number == 2 * workers:
            wait_for(context)
            begin, seen = time.perf_counter(), 0
        elif number > 2 * workers and time.perf_counter() - begin > seconds:
            break
    source.close()  # type: ignore[attr-defined]
    wait_for(context)
    return seen / (time.perf_counter() - begin)


def _endless(context: Context, data: Path, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Normalised training batches on the device: the few images again and again, with another crop each time."""
    split, size = JpegImages(data, "train", context.device, workers), speed_scale(context)[1]
    order = epoch_order(0, 1, len(split)).repeat(-(-ENOUGH // len(split)))
    normalisation = Normalisation(split.manifest["normalisation"], context.device)
    order_of_batches = order[:ENOUGH].split(size)
    for indices, pixels in zip(order_of_batches, split.training_pixels(CROPS, 0, 1, order_of_batches)):
        images = normalisation.channels_last(to_device(pixels, context.device))
        yield images, split.labels[to_device(indices, context.device)]


def _nvjpeg(context: Context, data: Path, how: str) -> None:
    name = f"nvJPEG, images {how}"
    if not context.on_gpu:
        context.report.leave_out(name, "needs a GPU")
        return
    from torchvision.io import decode_jpeg

    split, count = Split(data, "train"), speed_scale(context)[1]
    encoded = [
        torch.frombuffer(bytearray(split.encoded(index % len(split))), dtype=torch.uint8) for index in range(count)
    ]
    timing = time_calls(context, lambda: decode_jpeg(encoded, device=context.device))
    timing.report(context, name, count)


def _transfer(context: Context, data: Path) -> None:
    """A batch's pixels from pinned memory to the device, and their normalisation."""
    size, count = speed_scale(context)
    pixels = torch.zeros(count, size, size, 3, dtype=torch.uint8)
    normalisation = Normalisation(Split(data, "train").manifest["normalisation"], context.device)
    on_device = to_device(pixels, context.device)
    if context.on_gpu:
        pixels = pixels.pin_memory()
    transfer = time_calls(context, lambda: pixels.to(context.device, non_blocking=True, copy=True))
    transfer.report(context, "transfer of a batch", count)
    normalising = time_calls(context, lambda: normalisation.channels_last(on_device))
    normalising.report(context, "normalisation of a batch", count)
