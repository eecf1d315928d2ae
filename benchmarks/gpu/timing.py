"""Seconds of calls on the device, and of the host that only starts them."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.gpu.machine import Context

WARM_UP = 3
"""Calls before those that are timed."""


@dataclass(frozen=True)
class Timing:
    """Medians over rounds, per call."""

    seconds: float
    host_seconds: float
    """Until the host has started all that the device has to do."""
    gib: float
    """Peak of the memory that tensors took on the GPU; 0 on the CPU."""

    def report(self, context: Context, name: str, images: int) -> None:
        """One line: images per second first, because that is what one compares."""
        context.report.speed(
            name,
            f"{images / self.seconds:.0f} images/s, {1e3 * self.seconds:.2f} ms, "
            f"host {1e3 * self.host_seconds:.2f} ms, {self.gib:.1f} GiB",
            images_per_second=images / self.seconds,
            images=images,
            **asdict(self),
        )


def speed_scale(context: Context) -> tuple[int, int]:
    """(side of images in pixels, images per batch) at which speed is measured."""
    return (64, 4) if context.tiny else (224, 256)


def laps_and_rounds(context: Context) -> tuple[int, int]:
    return (1, 1) if context.tiny else (10, 3)


def time_calls(context: Context, call: Callable[[], Any]) -> Timing:
    laps, rounds = laps_and_rounds(context)
    if context.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(WARM_UP):
        call()
    found = [_time_round(context, call, laps) for _ in range(rounds)]
    peak = torch.cuda.max_memory_allocated() / 2**30 if context.on_gpu else 0.0
    seconds, host_seconds = (statistics.median(values) for values in zip(*found))
    return Timing(seconds, host_seconds, peak)


def _time_round(context: Context, call: Callable[[], Any], laps: int) -> tuple[float, float]:
    """(seconds on the device, seconds of the host) per call."""
    wait_for(context)
    begin = time.perf_counter()
    for _ in range(laps):
        call()
    started = time.perf_counter()
    wait_for(context)
    return (time.perf_counter() - begin) / laps, (started - begin) / laps


def wait_for(context: Context) -> None:
    """Until the device has done all that it was given."""
    if context.on_gpu:
        torch.cuda.synchronize()


@contextmanager
def memory_permitting(context: Context, name: str) -> Iterator[None]:
    """What needs more memory than the GPU has is left out."""
    try:
        yield
    except torch.OutOfMemoryError:
        context.report.leave_out(name, "out of memory")
