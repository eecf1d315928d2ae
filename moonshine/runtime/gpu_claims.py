"""Which of a machine's GPUs a job takes, because the engines assign no GPUs to their jobs.

A job locks a device's file until the job ends, however it ends: the kernel releases the lock. Nothing here imports
torch.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from moonshine.errors import MachineError
from moonshine.project import artefacts
from moonshine.runtime import signals
from moonshine.runtime.progress import say

FOLDER = artefacts.GPU_CLAIMS
SECONDS_BETWEEN_TRIES = 1.0


def claim_free_gpus(uuids: Sequence[str], count: int) -> list[int]:
    """The indices of the first `count` devices that no other job has; while fewer are free, waits and holds none.

    `uuids` name the devices that this process sees: unlike indices, they mean the same in every job, whatever
    CUDA_VISIBLE_DEVICES or a cluster's cgroups make visible to it.
    """
    _require(count, uuids)
    told = False
    while True:
        with _alone():
            locks = {index: _lock(uuid, fcntl.LOCK_EX) for index, uuid in enumerate(uuids)}
            free = {index: lock for index, lock in locks.items() if lock is not None}
            taken = list(free)[:count] if len(free) >= count else []
            for index, lock in free.items():
                if index in taken:
                    fcntl.flock(lock, fcntl.LOCK_SH)  # for `share_gpu`; no job can get in between: `_alone` is held
                else:
                    os.close(lock)
        if taken:
            return taken
        if not told:
            say(f"{len(free)} of {len(uuids)} GPUs are free and this job takes {count}; waiting for other jobs to end")
            told = True
        signals.poll("it waited for GPUs, nothing is lost")
        time.sleep(SECONDS_BETWEEN_TRIES)


def claim_gpu(uuids: Sequence[str], index: int) -> None:
    """Take one device or raise MachineError (exit code 5): processes that wait for each other must not wait here."""
    _require(index + 1, uuids)
    with _alone():
        claimed = _lock(uuids[index], fcntl.LOCK_EX) is not None
    if not claimed:
        raise MachineError(
            f"GPU {index} is taken by another job; set CUDA_VISIBLE_DEVICES to free ones, or wait until it ends"
        )


def share_gpu(uuid: str) -> None:
    """Hold on to a device that the parent process claimed, so that it stays taken if only the parent is killed."""
    _lock(uuid, fcntl.LOCK_SH)


def _require(count: int, uuids: Sequence[str]) -> None:
    if count > len(uuids):
        raise MachineError(f"{count} processes on this machine, but {len(uuids)} GPUs; lower recipe.processes")


@contextmanager
def _alone() -> Iterator[None]:
    """Lock out other jobs for a moment, so that none mistakes a device being tried for a claimed one."""
    try:
        FOLDER.mkdir(mode=0o777, exist_ok=True)
        FOLDER.chmod(0o1777)
    except PermissionError:
        pass  # another user's job has created it with this mode
    descriptor = os.open(FOLDER, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(uuid: str, kind: int) -> int | None:
    """A descriptor that holds the device's lock while open (at most until the process ends), or None if it is taken."""
    path = FOLDER / uuid
    try:
        # locking needs no write permission, and another user's file in a shared folder could not be opened for writing
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444)
        with suppress(PermissionError):  # another user has just made it
            os.fchmod(descriptor, 0o444)  # whatever the umask
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
