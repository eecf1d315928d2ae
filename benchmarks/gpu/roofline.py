"""How near a step comes to what this device's arithmetic and memory allow."""

import functools

import torch

from benchmarks.gpu.limits import Ceilings, limit
from benchmarks.gpu.machine import Context
from benchmarks.gpu.timing import speed_scale, time_calls
from moonshine.project.records import Architecture


@functools.cache
def measured_ceilings(context: Context) -> Ceilings:
    """A large bfloat16 matrix product's FLOPs, and the bytes that copying a large tensor reads and writes."""
    numbers, side = (2**20, 256) if context.tiny else (2**28, 8192)
    source = torch.empty(numbers, device=context.device).normal_()
    target = torch.empty_like(source)
    copying = time_calls(context, lambda: target.copy_(source)).seconds
    matrix = torch.randn(side, side, dtype=torch.bfloat16, device=context.device)
    multiplying = time_calls(context, lambda: matrix @ matrix).seconds
    return Ceilings("this device", 2 * side**3 / multiplying, 2 * source.nbytes / copying)


def share_of_limits(
    context: Context, student: Architecture, teacher: Architecture | None, seconds: float
) -> dict[str, float]:
    """Seconds that a bfloat16 step needs by `benchmarks.gpu.limits`, over the seconds that it took."""
    size, images = speed_scale(context)
    least = limit(student, teacher, size, images, measured_ceilings(context))
    each = seconds / images
    return {"share_of_limit": least.convolutions / each, "share_of_eager_floor": least.eager / each}
