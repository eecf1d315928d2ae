"""All checks and measurements, in the order in which they run."""

from collections.abc import Callable

from benchmarks.gpu.checks_arithmetic import deterministic, evaluation, non_finite, parity
from benchmarks.gpu.checks_commands import commands, containers, processes
from benchmarks.gpu.checks_data import images
from benchmarks.gpu.checks_training import compiled, memory, resume, together
from benchmarks.gpu.kernels import ceilings, depthwise, graph, maps, profile
from benchmarks.gpu.loading import loading
from benchmarks.gpu.machine import Context
from benchmarks.gpu.speeds import compiled_steps, peers, steps, teacher

Part = Callable[[Context], None]

CHECKS: dict[str, Part] = {
    part.__name__: part
    for part in (
        parity,
        deterministic,
        resume,
        together,
        non_finite,
        evaluation,
        memory,
        images,
        processes,
        commands,
        compiled,
        containers,
    )
}
"""Name -> a group of promises; those of docs/gpu-workstation.md, "Verified on"."""

SPEEDS: dict[str, Part] = {
    part.__name__: part
    for part in (ceilings, depthwise, maps, teacher, steps, peers, graph, compiled_steps, loading, profile)
}
"""Name -> a group of measurements."""

PARTS = {**CHECKS, **SPEEDS}
