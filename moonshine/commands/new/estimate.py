"""How long the trainings of an experiment take on this machine, from a few of their steps on random images."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moonshine.commands.new.survey import Survey
from moonshine.data.crops import training_pixels
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import Teacher
from moonshine.errors import DataError, MoonshineError, first_line
from moonshine.models.arithmetic import make_deterministic
from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.networks import initialise, place
from moonshine.params import Params
from moonshine.preparation.jpeg_store import JpegImage, inspect
from moonshine.project.rows import Row
from moonshine.runtime.progress import Progress
from moonshine.training.objective import CrossEntropy
from moonshine.training.state import PRECISIONS, TrainingState

SECONDS_PER_ROW = 3.0
"""Of steps measured for each row, if a step does not take longer."""
SMALL_BATCH = 2
LONG = 1800
"""Seconds from which it is said what would shorten the trainings."""
EVALUATION = 1 / 3
"""Time of a forward pass, relative to a training step."""


@dataclass(frozen=True)
class Estimate:
    """Seconds, for one seed."""

    rows: dict[str, float]
    """Row -> its training, decoding included."""
    device: str
    decoding: float
    """Share of the time that decoding images takes on a CPU."""

    def one_after_another(self, seeds: int) -> float:
        return seeds * sum(self.rows.values())

    def in_parallel(self, seeds: int, jobs: int) -> float:
        """With so many trainings at a time; students that learn from the teacher wait for it."""
        teacher, *_ = self.rows.values()
        last = max((seconds for row, seconds in self.rows.items() if row.startswith("distil/")), default=0.0)
        return max(self.one_after_another(seeds) / jobs, teacher + last, *self.rows.values())


def time_lines(params: Params, survey: Survey, cpus: int) -> list[str]:
    """The estimate in words, and what shortens it; why there is none if a step cannot be measured."""
    try:
        measured = estimate(params, survey)
    except (MoonshineError, RuntimeError, OSError, MemoryError) as error:
        return [f"Time: not estimated, because a training step failed here: {first_line(error)}"]
    seeds, jobs = len(params.seeds), max(1, cpus // params.recipe.threads) if measured.device == "cpu" else 1
    parallel, alone = measured.in_parallel(seeds, jobs), measured.one_after_another(seeds)
    where = "the GPU" if measured.device == "cuda" else f"{cpus} CPU{'s' if cpus > 1 else ''} of this machine"
    slowest = max(measured.rows, key=lambda row: measured.rows[row])
    lines = [
        f"Time: about {_about(parallel)} of training on {where} under snakemake --cores all, {_about(alone)} under dvc "
        f"repro; the longest training is {slowest}, {_about(measured.rows[slowest])}."
    ]
    if parallel > LONG:
        lines.append(f"To shorten it: {'; '.join(_remedies(params, measured))}.")
    return lines


def _remedies(params: Params, measured: Estimate) -> Iterator[str]:
    size, rows = params.dataset.size, len(measured.rows)
    if measured.device == "cpu":
        yield "a machine with a GPU, which is tens of times faster"
    if size > 64:
        yield f"--size {size // 2}, about a quarter of the time"
    yield f"fewer of the {params.recipe.epochs} epochs (--epochs)"
    if rows > 3:
        yield "fewer --students"
    if measured.decoding > 0.3:
        yield f"a smaller dataset.resize: decoding takes {measured.decoding:.0%} of a training"


def _about(seconds: float) -> str:
    """Two figures at most: no more is known."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            amount = seconds / length
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{max(seconds, 1):.0f} s"


def estimate(params: Params, survey: Survey) -> Estimate:
    """Train each row for a few steps, for as little as SECONDS_PER_ROW of them if possible."""
    device = torch.device("cuda" if params.machine.device != "cpu" and torch.cuda.is_available() else "cpu")
    make_deterministic(params.recipe.threads, tf32=params.recipe.precision == "tf32")
    images = {"train": survey.images("train"), "val": survey.images("val")}
    decoding = _decoding(params, survey.sample)
    per_epoch = images["train"] + EVALUATION * images["val"]
    seconds, share = {}, []
    with Progress("measuring a few steps", len(params.rows), unit="rows") as progress:
        for row in params.rows:
            step = _step(params, row, device)
            waiting = decoding if device.type == "cpu" else 0.0  # next to a GPU, other CPUs decode meanwhile
            seconds[row.name] = params.recipe_of(row).epochs * per_epoch * (step + waiting)
            share.append(waiting / (step + waiting))
            progress.update()
    return Estimate(seconds, device.type, max(share))


def _decoding(params: Params, sample: Sequence[bytes]) -> float:
    """Seconds per image that one CPU needs for a random crop of an image as `prepare` stores it."""
    dataset, scale = params.dataset, params.recipe.augmentation.crop_scale
    assert dataset.evaluation is not None
    assert scale is not None
    random, seconds = np.random.default_rng(0), 0.0
    channels, upright = dataset.channels, bool(dataset.exif_orientation)
    for original in sample:
        image = JpegImage(original, 0, "it")
        prepared, _, problem = inspect(image, dataset.resize, dataset.evaluation.resize, channels, upright)
        if problem:
            raise DataError(problem)
        start = time.perf_counter()
        training_pixels(prepared or original, "it", dataset.size, (scale[0], scale[1]), True, random, channels)
        seconds += time.perf_counter() - start
    return seconds / len(sample)


def _step(params: Params, row: Row, device: torch.device) -> float:
    """Seconds per image of a step, from a small batch and a larger one, because updating the weights takes the same
    time for any batch."""
    recipe, dataset = params.recipe_of(row).model_copy(update={"compile": False}), params.dataset
    state = TrainingState(row, params.architecture(row.network), _objective(params, row), recipe, 0, device)
    teacher = _teacher(params, device) if row.method else None

    def step(count: int) -> float:
        images = torch.randn(count, dataset.channels, dataset.size, dataset.size, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.randint(dataset.classes, (count,), device=device)
        start = time.perf_counter()
        state.step(images, labels, teacher(images) if teacher else None)
        state.training_means()  # waits for the device
        return time.perf_counter() - start

    def fastest(count: int) -> float:
        """Of a few steps: what else the machine does only makes steps slower."""
        times, end = [step(count)], time.perf_counter() + SECONDS_PER_ROW / 3
        while time.perf_counter() < end and len(times) < 5:
            times.append(step(count))
        return min(times)

    step(SMALL_BATCH)  # allocates memory and chooses kernels
    small = fastest(SMALL_BATCH)
    count = max(2 * SMALL_BATCH, min(recipe.batch_size, int(SMALL_BATCH * SECONDS_PER_ROW / 3 / small)))
    large = fastest(count)
    per_image = max((large - small) / (count - SMALL_BATCH), large / count / 4)
    return per_image + max(small - SMALL_BATCH * per_image, 0) / recipe.batch_size


def _objective(params: Params, row: Row) -> CrossEntropy | Distillation:
    if row.method is None:
        return CrossEntropy()
    layers = attention_layers_of(params.architecture(row.network))
    return Distillation(layers, **params.methods[row.method].objective)


def _teacher(params: Params, device: torch.device) -> Callable[[torch.Tensor], object]:
    architecture = params.architecture(params.teacher.split("/")[1])
    network = place(initialise(architecture, 0), device)
    return Teacher(network, attention_layers_of(architecture), PRECISIONS[params.recipe.precision])
