"""How many processes decode JPEG images for one process of a training or an evaluation."""

import functools
import os
import sys

from moonshine.runtime import distributed
from moonshine.runtime.cpus import usable_cpus
from moonshine.runtime.device import slots_in_reach
from moonshine.runtime.progress import say

MOST = 16
BATCHES_AHEAD = 2
"""Finished batches that each worker keeps in shared memory."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108 (only measured)
SHARE = 0.5
"""Share of the free shared memory to use; the rest is for batches in use and for other jobs."""
FEW_CPUS = 4
"""With fewer per training, a warning says that its GPU will wait."""

_say_once = functools.cache(say)


def loading_workers(wanted: int | None, on_gpu: bool, batch_bytes: int) -> int:
    """`wanted`, which is `machine.workers`, if it is set; otherwise as many as the CPUs and the shared memory allow.

    The processes of a training share the CPUs. On a GPU, all trainings that the GPUs in reach could take share them,
    because other jobs may use the rest. `batch_bytes` is the size of this process's largest batch.
    """
    cpus = usable_cpus() / max(distributed.LOCAL_WORLD_SIZE, slots_in_reach() if on_gpu else 1)
    if on_gpu and cpus < FEW_CPUS:
        _say_once(
            f"warning: CPUs per training on a GPU: {cpus:.3g}; the GPU will wait for images to be decoded; provide "
            "more, on a cluster with machine.jobs.<stage>.cpus"
        )
    if wanted is not None:
        return wanted
    workers = max(1, min(int(cpus), MOST))
    room = int(SHARE * _free_shared_memory()) // distributed.LOCAL_WORLD_SIZE
    fitting = max(1, room // (BATCHES_AHEAD * batch_bytes))
    if fitting < workers:
        _say_once(
            f"warning: loading workers: {fitting} instead of {workers}, for lack of room for their batches in "
            f"{SHARED_MEMORY}; provide more, in a container with docker run --shm-size"
        )
    return min(workers, fitting)


def _free_shared_memory() -> int:
    """Bytes; if there is no such folder, torch reports that itself."""
    try:
        status = os.statvfs(SHARED_MEMORY)
    except FileNotFoundError:
        return sys.maxsize
    return status.f_bavail * status.f_frsize
