"""Which of a machine's GPUs a job takes, since the engines place none of their jobs.

A job locks the file of a device until it ends, however it ends: the kernel releases the lock. Nothing here imports
torch.
"""

import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import suppress

from moonshine import artefacts, signals
from moonshine.errors import MachineError
from moonshine.progress import say

FOLDER = artefacts.GPU_CLAIMS
SECONDS_BETWEEN_TRIES = 1.0


def claim_free_gpu(uuids: Sequence[str]) -> int:
    """The index of the first device that no other job has; waits while all are taken.

    `uuids` name the devices that this process sees: unlike indices they mean the same in every job, whatever
    CUDA_VISIBLE_DEVICES or a cluster's control groups leave visible to it.
    """
    told = False
    while True:
        for index, uuid in enumerate(uuids):
            if _claim(uuid):
                return index
        if not told:
            say(f"all {len(uuids)} GPUs are taken by other jobs; waiting for one")
            told = True
        signals.poll("it waited for a GPU, nothing is lost")
        time.sleep(SECONDS_BETWEEN_TRIES)


def claim_gpu(uuids: Sequence[str], index: int) -> None:
    """Take one device or raise MachineError (exit code 5): processes that wait for each other must not wait here."""
    if index >= len(uuids):
        raise MachineError(f"{index + 1} processes on this machine, but {len(uuids)} GPUs; lower recipe.processes")
    if not _claim(uuids[index]):
        raise MachineError(
            f"GPU {index} is taken by another job; set CUDA_VISIBLE_DEVICES to free ones, or wait until it ends"
        )


def _claim(uuid: str) -> bool:
    """Whether the device is now this process's."""
    try:
        FOLDER.mkdir(mode=0o777, exist_ok=True)
        FOLDER.chmod(0o1777)
    except PermissionError:
        pass  # another user's job made it so
    path = FOLDER / uuid
    try:
        # a lock needs no right to write; another user's file in a shared folder could not be opened for that
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444)
        with suppress(PermissionError):  # another user has just made it
            os.fchmod(descriptor, 0o444)  # whatever the umask
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True  # the descriptor stays open, and the lock held, until the process ends
