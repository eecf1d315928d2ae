"""Whether dvc.lock is complete. DVC writes it in place, so a kill can leave only a part, which usually still parses.

Imports nothing from DVC, because every stage checks the file.
"""

import fcntl
import re
import time
from pathlib import Path
from typing import Any

import yaml

from moonshine.errors import DataError

DVC_LOCK = Path("dvc.lock")
CURE = "`moonshine unlock` restores it from the last commit"
REPOSITORY_LOCK = Path(".dvc", "tmp", "lock")


def is_cut_off(content: bytes) -> bool:
    """Whether this is only the beginning of a dvc.lock: a complete one ends with a newline after a stage's outputs."""
    last_stage = re.split(rb"^  \S", content, flags=re.MULTILINE)[-1]
    return not (content.endswith(b"\n") and (b"\n    outs:\n" in last_stage or content.endswith(b"stages: {}\n")))


def read_stages() -> dict[str, Any]:
    """The entry of each stage in dvc.lock, for all experiments; empty if there is no dvc.lock.

    Raises DataError (exit code 3) for a damaged one.
    """
    try:
        return dict(yaml.load(DVC_LOCK.read_text(), Loader=yaml.CSafeLoader)["stages"]) if DVC_LOCK.exists() else {}
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{DVC_LOCK}: damaged ({problem}); repair: git checkout -- {DVC_LOCK}") from None


def has_conflict(path: Path) -> bool:
    """Whether git left conflict markers in the file."""
    try:
        return any(line.startswith("<<<<<<< ") for line in path.read_text().splitlines())
    except (OSError, UnicodeDecodeError):
        return False


def require_whole_record() -> None:
    """DataError (exit code 3) if dvc.lock is cut off: DVC would take it for complete and lose what is missing."""
    if DVC_LOCK.is_file() and not has_conflict(DVC_LOCK) and _stays_cut_off():  # a conflict has its own cure
        raise DataError(f"{DVC_LOCK}: cut off because DVC was killed while writing it; {CURE}")


def _stays_cut_off() -> bool:
    while is_cut_off(DVC_LOCK.read_bytes()):
        if not _dvc_is_at_work():
            return is_cut_off(DVC_LOCK.read_bytes())
        time.sleep(0.2)
    return False


def _dvc_is_at_work() -> bool:
    """Whether a DVC process has locked this repository, as it does while it writes, but not while it runs a stage."""
    try:
        with REPOSITORY_LOCK.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
