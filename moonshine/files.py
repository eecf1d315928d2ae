"""Files written whole or not at all, and their hashes."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from moonshine.errors import MachineError, WriteError


def sha256(path: Path) -> str:
    """Hex sha256 of a file's content, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` complete and durable, or not at all.

    It is written beside the target, fsynced and renamed, and the folder is fsynced, so that a crash or a power
    cut at any instant leaves either the old content or the new. A failed write removes its temporary file and
    is reported as WriteError (exit code 9), a folder that cannot be written as MachineError (5).
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        _remove_quietly(temporary)
        raise _explain(error, path) from error
    except BaseException:
        _remove_quietly(temporary)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_quietly(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # the folder may have become unwritable; the first error is the one to report


def _explain(error: OSError, path: Path) -> Exception:
    if isinstance(error, PermissionError) or error.errno in (30,):  # EROFS
        return MachineError(f"{path}: cannot be written ({error.strerror}); make the folder writable")
    return WriteError(f"{path}: writing failed ({error.strerror}), {free_space(path)} free; make room and run again")


def free_space(path: Path) -> str:
    """Free bytes of the file system that `path` lies or will lie on, as text."""
    while not path.exists():
        path = path.parent
    stat = os.statvfs(path)
    return f"{stat.f_bavail * stat.f_frsize:,} bytes"


def write_bytes(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, so that equal content gives equal bytes."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")
