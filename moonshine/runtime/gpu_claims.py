"""Which of a machine's GPUs a job takes, because the engines assign no GPUs to their jobs.

Every job holds a shared lock on its device's file, which is named by the device's UUID, and a job that lets others use
the device at the same time also holds the lock of a slot. The kernel releases locks when a process ends, however it
ends. Nothing here imports torch.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from moonshine.errors import MachineError
from moonshine.project import artefacts
from moonshine.runtime import signals
from moonshine.runtime.progress import say

FOLDER = artefacts.GPU_CLAIMS
SECONDS_BETWEEN_TRIES = 1.0


class Claim(NamedTuple):
    """A device that this process holds until it ends."""

    device: int
    """Index of the device among those that this process sees."""
    slot: str
    """Name of the lock file: `<uuid>.<number>-of-<limit>`, or the UUID of a device that is shared with no job."""


def claim_free_gpus(uuids: Sequence[str], count: int, limit: int) -> list[Claim]:
    """Claim the `count` free devices that have the fewest jobs; while fewer are free, waits and holds none.

    `uuids` name the devices that this process sees: unlike indices, they mean the same in every job, whatever
    CUDA_VISIBLE_DEVICES or a cluster's cgroups make visible to it.

    `limit` is how many jobs, including this one, may have a device at the same time. Jobs with different limits share
    a device only within the lowest of them. One that wants a device alone waits until nobody has it.
    """
    _require(count, uuids)
    told = False
    while True:
        with _alone():
            jobs = {index: _jobs_to_join(uuid, limit) for index, uuid in enumerate(uuids)}
            free = sorted((number, index) for index, number in jobs.items() if number is not None)
            if len(free) >= count:
                return [Claim(index, _take(uuids[index], limit)) for _, index in free[:count]]
        if not told:
            say(f"{len(free)} of {len(uuids)} GPUs are free and this job takes {count}; waiting for other jobs to end")
            told = True
        signals.poll("it waited for GPUs, nothing is lost")
        time.sleep(SECONDS_BETWEEN_TRIES)


def claim_gpu(uuids: Sequence[str], index: int, limit: int) -> None:
    """Claim one device or raise MachineError (exit code 5): processes that wait for each other must not wait here."""
    _require(index + 1, uuids)
    with _alone():
        if _jobs_to_join(uuids[index], limit) is None:
            raise MachineError(
                f"GPU {index} is taken by another job; set CUDA_VISIBLE_DEVICES to free ones, or wait until it ends"
            )
        _take(uuids[index], limit)


def share_gpu(uuid: str, slot: str) -> None:
    """Hold on to what the parent process claimed, so that it stays taken if only the parent is killed."""
    for name in dict.fromkeys((uuid, slot)):
        _lock(name, fcntl.LOCK_SH)


def _require(count: int, uuids: Sequence[str]) -> None:
    if count > len(uuids):
        raise MachineError(f"{count} processes on this machine, but {len(uuids)} GPUs; lower recipe.processes")


@contextmanager
def _alone() -> Iterator[None]:
    """Lock out other jobs for a moment, so that none mistakes a lock being tried for a claim."""
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


def _jobs_to_join(uuid: str, limit: int) -> int | None:
    """How many jobs have the device, or None if no other may join them."""
    slots = [path.name for path in FOLDER.glob(f"{uuid}.*")]
    limits = [int(slot.rpartition("-")[2]) for slot in slots if not _is_free(slot)]
    if not limits and not _is_free(uuid):  # a job that holds no slot shares the device with nobody
        return None
    return len(limits) if len(limits) < min([limit, *limits]) else None


def _take(uuid: str, limit: int) -> str:
    """Lock a device that `_jobs_to_join` let this job join, and return the slot."""
    _lock(uuid, fcntl.LOCK_SH)
    if limit == 1:
        return uuid
    slot = next(slot for slot in (f"{uuid}.{number}-of-{limit}" for number in range(limit)) if _is_free(slot))
    _lock(slot, fcntl.LOCK_SH)
    return slot


def _is_free(name: str) -> bool:
    lock = _lock(name, fcntl.LOCK_EX)
    if lock is not None:
        os.close(lock)
    return lock is not None


def _lock(name: str, kind: int) -> int | None:
    """A descriptor that holds a file's lock while open (at most until the process ends), or None if it is taken."""
    path = FOLDER / name
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
