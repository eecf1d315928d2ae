"""Locks that the kernel releases when a process ends, however it ends."""

import fcntl
import os
import socket
import time
from pathlib import Path

from moonshine.errors import LockedError
from moonshine.runtime.files import explain, make_folder

RUN_LOCK = "lock"


def hold_lock(folder: Path) -> None:
    """Own a folder until this process ends. LockedError (exit code 6) names the live process that already owns it.

    A record lock, not flock, which data-loading workers would inherit; they outlive a killed parent by seconds.
    """
    path = folder / RUN_LOCK
    try:
        make_folder(folder)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            owner = os.read(descriptor, 1000).decode(errors="replace").strip() or "just started"
            os.close(descriptor)
            raise LockedError(f"{folder}: in use by another process ({owner}); wait for it or stop it") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{_this_process()}\n".encode())
    except OSError as error:
        raise explain(error, path) from None


def is_held(path: Path) -> bool:
    """Whether a live process other than this one owns a lock file. A process that owns it must not call this."""
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _this_process() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} since {started}{f', SLURM job {job}' if job else ''}"
