"""What the tests share: the project's root, commands run as a user runs them, small experiments."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from benchmarks.separate_project import (
    ROOT,
    checked_result,
    copy_this_project,
    environment,
    start_and_run,
    toy_params,  # noqa: F401 (from here for the tests)
)
from moonshine.runtime.files import sha256
from tests.support.warm import PROGRAMS, run_warm

READ_BY_COMMANDS = {"CUDA_VISIBLE_DEVICES", "MOONSHINE_PLANNED_PARAMS"}
"""Variables that commands read themselves, not Python or a library when it starts."""


def run(*command: str, cwd: Path, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a failure shows what it printed.

    This project's and the engines' are forked from a process that has made their imports (warm.py), unless `extra` may
    have to do with how they start.
    """
    program = command[2:] if command[:3] == (sys.executable, "-m", "moonshine") else command
    if program[0] in PROGRAMS and extra.keys() <= READ_BY_COMMANDS:
        return checked_result(run_warm(*program, folder=cwd, environment=environment(**extra)), check)
    return start_and_run(*command, cwd=cwd, check=check, **extra)


def run_moonshine(*arguments: str, cwd: Path, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "moonshine", *arguments, cwd=cwd, check=check, **extra)


def copy_project(folder: Path, params: dict[str, Any]) -> Path:
    """The same as copy_this_project, without the seconds that DVC takes to start."""
    return copy_this_project(folder, params, run)


def copy_finished(project: Path, folder: Path) -> Path:
    """A copy of a project that has run, with the modification times that Snakemake goes by."""
    run("cp", "-a", str(project), str(folder), cwd=project.parent)
    return folder


def once_per_run(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker to need it makes for all workers; none may run or change anything in it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared" / name
    made = folder / "made"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not made.exists():
            shutil.rmtree(folder)  # what a failed attempt left
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def stages_in(project: Path) -> list[int]:
    """Process ids of the stages that run in this folder, whoever started them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"moonshine" in words and (folder / "cwd").samefile(project) and b"python" in words[0]:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def is_stopped(process: int) -> bool:
    try:
        return "\nState:\tT" in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def pausing(project: Path, **where: str) -> dict[str, str]:
    """An environment in which stages stop themselves where PAUSE or PAUSE_AFTER tells (faults/recorder)."""
    path = os.pathsep.join(map(str, (project, ROOT, ROOT / "tests/faults/recorder")))
    return environment(PYTHONPATH=path, PHASES_FOLDER=str(project.parent), **where)


def start_until_paused(
    *command: str, cwd: Path, phase: str = "", processes: int = 1, **where: str
) -> "subprocess.Popen[str]":
    """An engine or a stage, once so many of its processes have stopped themselves in a phase (faults/phases.py)."""
    variables = pausing(cwd, PAUSE=phase, **where)
    process = subprocess.Popen(command, cwd=cwd, env=variables, stderr=subprocess.PIPE, text=True)
    while sum(map(is_stopped, stages_in(cwd))) < processes:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


@contextmanager
def held(project: Path) -> Iterator[list[int]]:
    """The stages that run here, stopped meanwhile: on no machine, however fast, do they end before."""
    stages = stages_in(project)
    assert stages, "no stage runs here"
    for stage in stages:
        os.kill(stage, signal.SIGSTOP)
    while not all(map(is_stopped, stages)):  # a stop takes effect when the process runs next
        assert set(stages) <= set(stages_in(project)), "a stage ended before it could be held"
    try:
        yield stages
    finally:
        for stage in stages:
            with suppress(ProcessLookupError):
                os.kill(stage, signal.SIGCONT)


ANOTHER_OWNER = {
    "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}
"""An environment in which git refuses each repository as another user's."""


def files_below(folder: Path, *suffixes: str) -> dict[str, str]:
    """Path -> sha256 of every file, or of those with these suffixes."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): sha256(p) for p in paths if not suffixes or p.suffix in suffixes}
