"""Which engines are running in this folder, judging by their processes. Imports neither, because stages ask, too."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from moonshine.errors import LockedError

ENGINES = ("snakemake", "dvc")
SNAKEMAKE_LOCKS = Path(".snakemake", "locks")
DVC_STAGE = "DVC_STAGE"
"""Environment variable in which DVC passes a stage its name."""


def require_no_snakemake() -> None:
    """LockedError (exit code 6) while Snakemake runs jobs here on this machine; planning locks nothing."""
    if any(SNAKEMAKE_LOCKS.glob("*")):
        for owner in live_engines():
            if ENGINES[0] in owner:
                raise LockedError(f"{owner}; wait for it or stop it")


def require_no_snakemake_beside_dvc() -> None:
    """The same check for a stage of `dvc repro`, which deletes outputs that a Snakemake job may be reading."""
    if DVC_STAGE in os.environ:
        require_no_snakemake()


def require_nothing_read_by_dvc(made: Iterable[str], read: Mapping[str, Iterable[str]]) -> None:
    """LockedError (exit code 6) if Snakemake would remake, and so first delete, what a stage of `dvc repro` reads.

    `made` are the outputs of the jobs to run, `read` maps the name of each stage to its inputs. A stage that is missing
    from `read`, because params have changed since it started, may read anything.
    """
    made = set(made)
    if DVC_STAGE in os.environ:  # this Snakemake runs inside a stage itself
        return
    for process, stage in _stages_of_dvc():
        if stage not in read or made.intersection(read[stage]):
            raise LockedError(
                f"process {process}: {stage} is running here under dvc and reads what would be made again; "
                "wait for it or stop it"
            )


def live_engines() -> Iterator[str]:
    """Snakemake and DVC processes whose working directory is this one, except the ancestors of this process."""
    found, idle = {}, _ancestors()
    for folder in _processes_here():
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "daemon" in words:  # DVC's, for analytics and update checks; a copy of DVC waits for it
                idle.add(_parent(folder))
            elif (program := _program(words)) in ENGINES and "--touch" not in words:
                found[int(folder.name)] = program
        except OSError:
            continue  # it has just ended
    for process in sorted(found.keys() - idle):
        yield f"process {process}: {found[process]} is running here"


def _stages_of_dvc() -> Iterator[tuple[str, str]]:
    """Process id and name of each stage that DVC is running here."""
    for folder in _processes_here():
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended, or belongs to another user
        for variable in variables:
            if variable.startswith(f"{DVC_STAGE}=".encode()):
                yield folder.name, variable.decode(errors="replace").partition("=")[2]


def _processes_here() -> Iterator[Path]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cwd").samefile("."):
                yield folder
        except OSError:
            continue


def _ancestors() -> set[int]:
    found, process = set(), os.getppid()
    while process > 1:
        found.add(process)
        try:
            process = _parent(Path("/proc", str(process)))
        except OSError:
            break
    return found


def _program(words: Sequence[str]) -> str:
    """The name of what a command line runs: its first word, or the script or module that Python runs."""
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
