"""Start `moonshine` commands that can be watched, stopped, killed and traced, in processes that warm.py forks.

Each is `moonshine.cli.main` in a process and process group of its own, with its own folder, signals, file descriptors
and exit code.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults import phases
from tests.support.project import is_stopped
from tests.support.warm import CONTEXT

STRACE = shutil.which("strace")


@dataclass(frozen=True)
class Result:
    """`code` is negative for a process that a signal killed; `output` is all that it printed."""

    code: int
    output: str
    phase: str
    """What it was doing when it ended: see phases.py."""
    steps: int
    """Training steps that it had finished."""


class Command:
    """A started `moonshine` command.

    It stops itself (SIGSTOP) when it enters the phase `pause`; `prepare` is called in it before all else.
    """

    def __init__(
        self,
        folder: Path,
        arguments: tuple[str, ...],
        pause: str | None = None,
        prepare: Callable[[], None] | None = None,
        traced: bool = False,
    ):
        self._output = folder / f"output-{time.monotonic_ns()}"
        self.phase_file = self._output.with_suffix(".phase")
        files = (str(self._output), str(self.phase_file))
        self.process = CONTEXT.Process(target=_child, args=(str(folder), arguments, files, pause, prepare, traced))
        self.process.start()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    def paused(self) -> bool:
        return is_stopped(self.pid)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def phase(self) -> str:
        return phases.read_phase(self.phase_file)

    def wait_until(self, condition: Callable[["Command"], bool]) -> bool:
        """Wait for a condition; False if the process ended before."""
        while not condition(self):
            if not self.process.is_alive():
                return False
            time.sleep(0.0005)
        return True

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        if self.process.is_alive():
            os.kill(self.pid, signal_number)

    def finish(self) -> Result:
        self.process.join()
        code = self.process.exitcode
        assert code is not None
        if not self.phase_file.exists():  # killed before its first words
            return Result(code, "", "start", 0)
        result = Result(code, self._output.read_text(errors="replace"), self.phase(), phases.steps(self.phase_file))
        self._output.unlink()
        self.phase_file.unlink()
        return result


def start(
    folder: Path, *arguments: str, pause: str | None = None, prepare: Callable[[], None] | None = None
) -> Command:
    """It runs, or has stopped itself in the phase `pause`."""
    running = Command(folder, arguments, pause, prepare)
    if pause:
        assert running.wait_until(Command.paused), running.finish().output
    return running


def command(folder: Path, *arguments: str, prepare: Callable[[], None] | None = None) -> Result:
    """Run to the end."""
    return Command(folder, arguments, prepare=prepare).finish()


def traced(folder: Path, *arguments: str, options: tuple[str, ...]) -> tuple[Result, list[str]]:
    """Run under strace with these options; also returns strace's lines."""
    assert STRACE
    running = Command(folder, arguments, traced=True)
    log = folder / f"strace-{running.pid}"
    tracer = subprocess.Popen(
        [STRACE, "-f", "-y", "-o", str(log), *options, "-p", str(running.pid)], stderr=subprocess.PIPE, text=True
    )
    result = running.finish()
    _, errors = tracer.communicate()
    assert log.exists(), errors
    lines = log.read_text(errors="replace").splitlines()
    log.unlink()
    return result, lines


def _child(
    folder: str,
    arguments: tuple[str, ...],
    files: tuple[str, str],
    pause: str | None,
    prepare: Callable[[], None] | None,
    traced: bool,
) -> None:
    os.setpgid(0, 0)
    os.chdir(folder)
    descriptor = os.open(files[0], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    phases.record_phases(Path(files[1]), pause)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if prepare:
        prepare()
    while traced and "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
        time.sleep(0.001)
    from moonshine.cli import main

    sys.exit(main(list(arguments)))
