"""How many students fit in memory together, measured on the device that they will train on."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moonshine.data.labels import Labels
from moonshine.runtime.control_groups import control_groups
from moonshine.training.state import TrainingState

SHARE = 0.9
"""Share of the free memory to use; the rest is for what the allocator leaves unused."""

CONTROL_GROUP_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Version of control groups -> the files with the limit and the usage, and the line of memory.stat with the cache."""


@dataclass(frozen=True)
class Need:
    """Bytes that one student needs: `lasting` between steps, `passing` on top during its own step."""

    lasting: int
    passing: int


def measure_need(state: TrainingState, images: torch.Tensor, labels: Labels, teacher: Any) -> Need:
    """Train a throw-away network on one batch and measure the memory it takes.

    `lasting` is weights, buffers, gradients, the optimiser's state and the average of the weights. `passing` is, on a
    GPU, the allocator's peak above what was allocated before; on a CPU, which keeps no such count, what the forward
    pass saves for the backward pass.
    """
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    on_gpu = state.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    noting = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with contextlib.nullcontext() if on_gpu else noting:
        state.step(images, labels, teacher)
    gradients = sum(parameter.nbytes for parameter in state.network.parameters())
    lasting = gradients + sum(tensor.nbytes for tensor in state.tensors())
    passing = torch.cuda.max_memory_allocated() - before if on_gpu else sum(saved.values())
    return Need(lasting, passing)


def free_memory(device: torch.device, trainings_per_gpu: int) -> int:
    """Memory that is available: of the GPU, or what the kernel and the control groups leave to this process.

    Of a GPU that `trainings_per_gpu` jobs share, each may take an equal share, even if the others have not started.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        allocated = torch.cuda.memory_allocated()
        # the GPU counts what the allocator has reserved as taken
        return min(free + torch.cuda.memory_reserved(), total // trainings_per_gpu) - allocated
    return min([_available(), *_left_by_control_groups()])


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("a Linux kernel since 3.14 has MemAvailable")


def _left_by_control_groups() -> Iterator[int]:
    for version, group in control_groups("memory"):
        with contextlib.suppress(OSError, ValueError):  # no such group in this container, or no limit: "max"
            yield _left(group, *CONTROL_GROUP_FILES[version])


def _left(group: Path, limit: str, usage: str, cache: str) -> int:
    """Bytes left; page cache of files that were read does not count: the kernel frees it when memory is needed."""
    statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int((group / limit).read_text()) - int((group / usage).read_text()) + int(statistics.get(cache, 0))


def batches_of_students(needs: Sequence[Need], free: int) -> list[list[int]]:
    """Split students, by their indices, into consecutive groups whose memory fits.

    Students step one after another, so a group takes the lasting bytes of all and the passing bytes of the greediest.
    A student that fits nowhere gets a group of its own, to fail with the device's own message.
    """
    groups: list[list[int]] = []
    for index in range(len(needs)):
        candidate = [*groups[-1], index] if groups else [index]
        members = [needs[i] for i in candidate]
        if len(candidate) > 1 and _total(members) <= SHARE * free:
            groups[-1] = candidate
        else:
            groups.append([index])
    return groups


def _total(members: Sequence[Need]) -> int:
    return sum(need.lasting for need in members) + max(need.passing for need in members)
