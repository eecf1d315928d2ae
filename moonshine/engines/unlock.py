"""`moonshine unlock`: remove what killed engines left in others' way, and nothing that a live one holds.

Snakemake's lock is a list of files without an owner, and a kill -9 leaves it; DVC's names process ids, which containers
use again, and a crash may leave it half written. Both are told from live ones by looking for their processes. dvc.lock,
which is no lock, DVC writes in place, so that a kill can leave a part of it.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import ParseError, parse_yaml
from voluptuous import Invalid

from moonshine import artefacts
from moonshine.engines.dvc_project import conflict_in
from moonshine.engines.lock_file import RECORD, has_conflict, is_cut_off
from moonshine.errors import DataError, LockedError
from moonshine.files import write_bytes
from moonshine.git import git
from moonshine.leftovers import ASIDE, set_aside
from moonshine.locks import LOCK, is_held
from moonshine.progress import say

ENGINES = ("snakemake", "dvc")
SNAKEMAKE_LOCKS, DVC_LOCK = Path(".snakemake", "locks"), Path(".dvc", "tmp", "rwlock")


def unlock() -> None:
    """LockedError (exit code 6) names live owners; on a cluster, those of this machine only can be seen."""
    owners = [*_live_engines(), *_live_runs()]
    if owners:
        raise LockedError("\n".join(f"{owner}; wait for it or stop it" for owner in owners))
    stale = [*SNAKEMAKE_LOCKS.glob("*"), *([DVC_LOCK] if _claims_anything(DVC_LOCK) else [])]
    for path in stale:
        path.unlink()
        say(f"{path}: stale, removed")
    restored = _restore_record()
    if not stale and not restored:
        say("nothing was locked")


def _restore_record() -> bool:
    """Put dvc.lock back as the last commit has it where it is not whole; what has run since is then planned again."""
    if not RECORD.exists():
        return False
    if has_conflict(RECORD):
        raise DataError(conflict_in(str(RECORD)))
    if _is_whole():
        return False
    set_aside(RECORD)
    committed = git("show", f"HEAD:./{RECORD}")
    if committed is not None:
        write_bytes(RECORD, committed)
    put_back = "as the last commit has it" if committed is not None else "removed, for no commit has it"
    say(f"{RECORD}: was not whole; now {put_back}, and the old one in {ASIDE}; what has run since is planned again")
    return True


def _is_whole() -> bool:
    try:
        content = RECORD.read_bytes()
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(content.decode(), RECORD))
        return not is_cut_off(content)
    except (OSError, UnicodeDecodeError, ParseError, Invalid):
        return False


def require_no_snakemake() -> None:
    """LockedError (exit code 6) while a Snakemake of this machine runs jobs here; a plan locks nothing."""
    if any(SNAKEMAKE_LOCKS.glob("*")):
        for owner in _live_engines():
            if ENGINES[0] in owner:
                raise LockedError(f"{owner}; wait for it or stop it")


def _claims_anything(lock: Path) -> bool:
    """DVC leaves `{"read": {}}` behind when all went well; a lock that is not whole stops it."""
    try:
        return any(json.loads(lock.read_text()).values())
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError):
        return True


def _live_engines() -> Iterator[str]:
    """Processes of Snakemake or DVC whose working folder is this one."""
    found, idle = {}, set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if not (folder / "cwd").samefile("."):
                continue
            if "daemon" in words:  # with which DVC reports and looks for updates, and a copy of DVC waits for that
                idle.add(_parent(folder))
            elif (program := _program(words)) in ENGINES:
                found[int(folder.name)] = program
        except OSError:
            continue  # it has just ended, or is another user's
    for process in sorted(found.keys() - idle):
        yield f"process {process}: {found[process]} is at work here"


def _program(words: Sequence[str]) -> str:
    """The name of what a command line runs: of its first word, or of the script or module that a Python runs."""
    name = Path(words[0]).name
    if not name.startswith("python"):
        return name
    arguments = iter(words[1:])
    for word in arguments:
        if word in ("-W", "-X"):
            next(arguments, "")  # its value
        elif word == "-m":
            return next(arguments, "")
        elif word == "-c" or not word.startswith("-"):
            return Path(word).name
    return name


def _parent(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


def _live_runs() -> Iterator[str]:
    """Stages that outlived their engine."""
    for path in sorted(artefacts.RUNS.rglob(LOCK)):
        if is_held(path):
            yield f"{path.parent}: {path.read_text(errors='replace').strip()} is at work here"
