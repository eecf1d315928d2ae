"""Whether dvc.lock is whole. DVC writes it in place, so that a kill can leave a part of it, mostly one that parses.

Imports nothing of DVC's, for every stage looks at it.
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
    """Whether this is the beginning of a dvc.lock only: DVC ends each line, and the last stage with its outputs."""
    last_stage = re.split(rb"^  \S", content, flags=re.MULTILINE)[-1]
    return not (content.endswith(b"\n") and (b"\n    outs:\n" in last_stage or content.endswith(b"stages: {}\n")))


def read_stages() -> dict[str, Any]:
    """What dvc.lock has of each stage, of all experiments; nothing if there is none.

    Raises DataError (exit code 3) for a damaged one.
    """
    try:
        return dict(yaml.load(DVC_LOCK.read_text(), Loader=yaml.CSafeLoader)["stages"]) if DVC_LOCK.exists() else {}
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{DVC_LOCK}: damaged ({problem}); repair: git checkout -- {DVC_LOCK}") from None


def has_conflict(path: Path) -> bool:
    """Whether git left its markers in the file."""
    try:
        return any(line.startswith("<<<<<<< ") for line in path.read_text().splitlines())
    except (OSError, UnicodeDecodeError):
        return False


def require_whole_record() -> None:
    """DataError (exit code 3) for a part of dvc.lock: DVC would take it for all, and what is missing would be lost."""
    if DVC_LOCK.is_file() and not has_conflict(DVC_LOCK) and _stays_cut_off():  # a conflict has a cure of its own
        raise DataError(f"{DVC_LOCK}: cut off because DVC was killed while writing it; {CURE}")


def _stays_cut_off() -> bool:
    while is_cut_off(DVC_LOCK.read_bytes()):
        if not _dvc_is_at_work():
            return is_cut_off(DVC_LOCK.read_bytes())
        time.sleep(0.2)
    return False


def _dvc_is_at_work() -> bool:
    """Whether a DVC holds this repository, as it does while it writes, but not while it runs a stage."""
    try:
        with REPOSITORY_LOCK.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
