"""Files written whole or not at all, and their hashes."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from moonshine.errors import DataError, MachineError, MoonshineError, WriteError
from moonshine.project.artefacts import SNAKEMAKE_TIMESTAMP
from moonshine.runtime.progress import say

ATTEMPTS, SECONDS_BETWEEN_ATTEMPTS = 3, 2.0
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CHECKSUM = "checksum"


def sha256(path: Path) -> str:
    """Hex sha256 of a file's content, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5(content: bytes) -> str:
    """The hash by which DVC identifies content."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def md5_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def atomic_write(path: Path, needed: int | None = None) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` complete and durable, or not at all.

    It is written next to the target, fsynced and renamed, and the folder is fsynced, so that a crash or a power
    cut at any instant leaves either the old content or the new. `needed` is its size in bytes, if that is known.
    A failed write removes its temporary file and is reported as WriteError (exit code 9), a folder that cannot be
    written to as MachineError (5). The next writer of the same file removes what a killed writer left behind.
    """
    temporary = None
    try:
        make_folder(path.parent)
        _require_free(path, needed)
        file, temporary = _open_temporary(path)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        if temporary:
            with suppress(OSError):  # the folder may have become unwritable; the first error is the one to report
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise explain(error, path, needed) from error
        raise


def make_folder(folder: Path) -> None:
    """Like mkdir -p, but durable: a new folder's directory entry is fsynced too."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_temporary(path: Path) -> tuple[BinaryIO, Path]:
    """A new file next to `path`, locked while its writer lives; unlocked ones are stale and removed."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.tmp-*"):
        with suppress(OSError), leftover.open("rb") as old:
            fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()
    while True:
        temporary = path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")
        file = temporary.open("xb")
        with suppress(OSError):  # BlockingIOError: just mistaken for a leftover; others: a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_nlink:
            return file, temporary
        file.close()


def is_temporary(path: Path) -> bool:
    """Whether `atomic_write` is writing this file, or was writing it when killed."""
    return path.name.startswith(".") and ".tmp-" in path.name


def explain(error: OSError, path: Path, needed: int | None = None) -> MoonshineError:
    """What a failed access means to the user: MachineError (5) if it is not allowed, else WriteError (9)."""
    reason = error.strerror or str(error)
    if error.errno in NOT_ALLOWED:
        return MachineError(f"{path}: cannot be written ({reason}); make its folder writable, or work elsewhere")
    size = "" if needed is None else f"{needed:,} bytes needed, "
    full = error.errno in NO_ROOM
    what, cure = ("writing", "make room") if full else ("reading or writing", "check the disk")
    return WriteError(
        f"{path}: {what} failed ({reason}); {size}{free_bytes(path):,} bytes free there; "
        f"{cure} and run the same command again"
    )


def free_bytes(path: Path) -> int:
    """Free bytes on the file system that `path` is or will be on."""
    while not path.exists():
        path = path.parent
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def _require_free(path: Path, needed: int | None) -> None:
    if needed is not None and free_bytes(path) < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def remove(path: Path) -> None:
    """Remove a file or a folder: damage may have turned a file into a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def keep_only(folder: Path, names: Iterable[str]) -> None:
    """Remove everything else from a declared output folder, such as what params.yaml no longer names."""
    kept = {*names, SNAKEMAKE_TIMESTAMP}
    for path in folder.glob("*"):
        if path.name not in kept:
            remove(path)


def require_room(folder: Path, needed: int, purpose: str) -> None:
    """Before long work, raise MachineError (exit code 5) unless the file system of `folder` has `needed` bytes free."""
    if (free := free_bytes(folder)) < needed:
        raise MachineError(f"{folder}: {purpose}: {needed:,} bytes needed, {free:,} bytes free there; make room")


def write_bytes(path: Path, content: bytes | memoryview, attempts: int = ATTEMPTS) -> None:
    """Write atomically and durably, retrying for a few seconds if the disk is full or fails briefly."""
    for attempt in range(1, attempts + 1):
        try:
            with atomic_write(path, len(content)) as file:
                file.write(content)
            return
        except WriteError as error:
            if attempt == attempts:
                raise
            say(f"warning: {error}; trying again in {SECONDS_BETWEEN_ATTEMPTS:g} s")
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)


def write_text(path: Path, content: str, attempts: int = ATTEMPTS) -> None:
    write_bytes(path, content.encode(), attempts)


def write_json(path: Path, content: Any, attempts: int = ATTEMPTS) -> None:
    """Write JSON with sorted keys, so that equal content gives equal bytes."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", attempts)


def write_checked_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with a checksum of itself, so that no damage to it goes unnoticed."""
    write_json(path, {**content, CHECKSUM: _checksum(content)})


def read_checked_json(path: Path, cure: str) -> dict[str, Any]:
    """What `write_checked_json` wrote; DataError (exit code 3) with the cure if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop(CHECKSUM) == _checksum(content):
            return content
        problem = "its checksum is wrong"
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {cure}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise DataError(f"{path}: damaged ({problem}); {cure}")


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
