"""`moonshine merge-lock`: merge two versions of dvc.lock for git, stage by stage.

git would merge line by line, and could combine a stage's code from one side with its params or outputs from the other,
which nobody ever ran together.
"""

from pathlib import Path
from typing import Any

from dvc.utils.serialize import ParseError, dumps_yaml, parse_yaml

from moonshine.errors import DataError
from moonshine.project.git import git
from moonshine.project.lock_file import DVC_LOCK
from moonshine.runtime.files import write_text
from moonshine.runtime.progress import say

Stages = dict[str, dict[str, Any]]


def merge_lock(base: Path, ours: Path, theirs: Path) -> None:
    """Write into `ours` each stage as recorded by the side that ran it since `base`.

    A stage that both sides ran with different outcomes is left out: both engines then plan it. DataError (exit code 3),
    on which git keeps ours and reports a conflict, for a file that is not a dvc.lock.
    """
    before, here, there = (_read(path) for path in (base, ours, theirs))
    merged: Stages = {}
    for name in [*here, *(name for name in there if name not in here)]:
        mine, other = here.get(name), there.get(name)
        if mine != other and before.get(name) not in (mine, other):
            say(f"dvc.lock: both sides ran {name}; it must be run again")
        elif stage := other if mine == before.get(name) else mine:
            merged[name] = stage
    write_text(ours, dumps_yaml({"schema": "2.0", "stages": merged}))


def leave_out_what_was_mixed() -> None:
    """Remove from dvc.lock each stage that the merge just made combined from lines of several sides.

    The strategies `octopus` and `resolve` merge line by line, whatever driver a file has. To be called after a merge
    that completed by itself: for one that somebody finished by hand, stages may have been run.
    """
    if b"Merge made by" not in (git("log", "--walk-reflogs", "--max-count=1", "--format=%gs") or b""):
        return  # but a fast-forward, perhaps to somebody's merge
    parents = (git("rev-parse", "HEAD^@") or b"").decode().split()
    sides = [_parse(git("show", f"{parent}:./{DVC_LOCK}") or b"", DVC_LOCK) for parent in parents]
    merged = _read(DVC_LOCK) if DVC_LOCK.exists() else {}
    mixed = [name for name, stage in merged.items() if all(side.get(name) != stage for side in sides)]
    for name in mixed:
        say(f"{DVC_LOCK}: {name} was mixed from what several sides ran; it must be run again")
        del merged[name]
    if mixed:
        write_text(DVC_LOCK, dumps_yaml({"schema": "2.0", "stages": merged}))


def _read(path: Path) -> Stages:
    try:
        return _parse(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path}: not a dvc.lock ({error.strerror}); merge it by hand") from None


def _parse(lock: bytes, path: Path) -> Stages:
    try:
        content = parse_yaml(lock.decode(), path)  # empty if both sides have added dvc.lock
        return dict(content["stages"]) if content else {}
    except (UnicodeDecodeError, ParseError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a dvc.lock ({' '.join(str(error).split())}); merge it by hand") from None
