"""`moonshine unlock`: clean up what killed engines left behind, but nothing that a live one holds.

Snakemake's lock is a list of files without an owner, which survives a kill -9; DVC's names process ids, which
containers reuse, and a crash may leave it half written. Looking for their processes tells whether they are stale.
dvc.lock, which is not a lock, is written in place by DVC, so a kill can leave only part of it.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import ParseError, dumps_yaml, parse_yaml
from voluptuous import Invalid

from moonshine.engines.dvc_project import conflict_in
from moonshine.engines.leftovers import ASIDE, set_aside
from moonshine.engines.live import SNAKEMAKE_LOCKS, live_engines
from moonshine.engines.record import record
from moonshine.errors import DataError, LockedError, MoonshineError
from moonshine.project import artefacts
from moonshine.project.git import git
from moonshine.project.lock_file import DVC_LOCK, has_conflict, is_cut_off
from moonshine.runtime.files import write_bytes, write_text
from moonshine.runtime.locks import RUN_LOCK, is_held
from moonshine.runtime.progress import say

DVC_RWLOCK = Path(".dvc", "tmp", "rwlock")


def unlock() -> None:
    """LockedError (exit code 6) names live owners; on a cluster, only those on this machine can be seen."""
    owners = [*live_engines(), *_live_runs()]
    if owners:
        raise LockedError("\n".join(f"{owner}; wait for it or stop it" for owner in owners))
    stale = [*SNAKEMAKE_LOCKS.glob("*"), *([DVC_RWLOCK] if _claims_anything(DVC_RWLOCK) else [])]
    for path in stale:
        path.unlink()
        say(f"{path}: stale, removed")
    restored = _restore_record()
    if not stale and not restored:
        say("nothing was locked")


def _restore_record() -> bool:
    """Restore dvc.lock, if not whole, from the last commit, plus the stages that the damaged file still has whole.

    What Snakemake has run since is recorded again; the rest is planned again, and trainings reuse what is in runs/.
    """
    if not DVC_LOCK.exists():
        return False
    if has_conflict(DVC_LOCK):
        raise DataError(conflict_in(str(DVC_LOCK)))
    if _is_whole():
        return False
    committed, left = git("show", f"HEAD:./{DVC_LOCK}"), whole_stages(DVC_LOCK.read_bytes())
    set_aside(DVC_LOCK)
    known = whole_stages(committed or b"", cut_off=False)
    if known | left == known:
        if committed is not None:
            write_bytes(DVC_LOCK, committed)
    else:
        write_text(DVC_LOCK, dumps_yaml({"schema": "2.0", "stages": known | left}))
    put_back = "restored from the last commit" if committed is not None else "empty, because no commit has it"
    newer = sum(known.get(name) != stage for name, stage in left.items())
    say(f"{DVC_LOCK}: was not whole; now {put_back}, except for {newer} stages still in it; the old one is in {ASIDE}")
    _record_again()
    return True


def _record_again() -> None:
    """Record, but let no fault of the project's files, such as invalid params, keep dvc.lock from being restored."""
    try:
        record(())
    except MoonshineError as error:
        say(f"what has run since is not recorded yet ({error}); then run `moonshine record`")


def _is_whole() -> bool:
    try:
        content = DVC_LOCK.read_bytes()
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(content.decode(), DVC_LOCK))
        return not is_cut_off(content)
    except (OSError, UnicodeDecodeError, ParseError, Invalid):
        return False


def whole_stages(content: bytes, cut_off: bool = True) -> dict[str, Any]:
    """The stages of a dvc.lock; if it is cut off, all but the last one, which may be incomplete."""
    if cut_off:
        starts = [found.start() for found in re.finditer(rb"^  \S", content, re.MULTILINE)]
        content = content[: starts[-1]] if len(starts) > 1 else b""
    try:
        if lock := parse_yaml(content.decode(), DVC_LOCK):
            COMPILED_LOCKFILE_SCHEMA(lock)
            return dict(lock["stages"])
        return {}
    except (UnicodeDecodeError, ParseError, Invalid):
        return {}


def _claims_anything(lock: Path) -> bool:
    """Whether it makes DVC stop: not as `{"read": {}}`, which DVC leaves if all went well, but if it is incomplete."""
    try:
        return any(json.loads(lock.read_text()).values())
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError):
        return True


def _live_runs() -> Iterator[str]:
    """Stages that outlived their engine."""
    for path in sorted(artefacts.RUNS.rglob(RUN_LOCK)):
        if is_held(path):
            yield f"{path.parent}: {path.read_text(errors='replace').strip()} is running here"
