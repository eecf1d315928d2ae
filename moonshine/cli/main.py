"""One command from its arguments to its exit code."""

import gc
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from moonshine.cli.command import GRAPH
from moonshine.cli.parser import parse
from moonshine.errors import (
    DivergedError,
    Interrupted,
    LockedError,
    MachineError,
    MoonshineError,
    ParamsError,
    WriteError,
)
from moonshine.runtime import distributed, progress, startup
from moonshine.runtime.device_errors import explain_device_error
from moonshine.runtime.files import explain


def run() -> NoReturn:
    """Run one command as a process of its own."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the caller closed it
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (open until the end)
        getattr(sys, name).reconfigure(errors="replace")  # a terminal without UTF-8 shows question marks
    try:
        code = main(sys.argv[1:], own_process=True)
    except Exception:  # noqa: BLE001 (a bug, which is shown as one)
        traceback.print_exc()
        code = 1
    _end_workers()
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except OSError:  # or Python's last flush would fail too, and change the exit code
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    gc.freeze()  # or Python would scan torch's million objects once more
    sys.exit(code)


def _end_workers() -> None:
    """DataLoader workers ignore the signal by which Python asks them to end, and it would wait for them forever."""
    if "multiprocessing" in sys.modules:
        from multiprocessing import active_children

        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises when a worker is killed
        for worker in active_children():
            worker.kill()


def main(arguments: Sequence[str], own_process: bool = False) -> int:
    """Run one command; returns the exit code (docs/errors.md).

    With `own_process`, a long command first restarts its process with the memory settings for long commands.
    """
    try:
        command, options = parse(arguments)
        if command.is_long and own_process:
            startup.restart_with_tunables()
        startup.set_up()
        if distributed.WORLD_SIZE > 1 and not command.is_distributed:
            raise ParamsError("torchrun starts train and distil; run other commands without it")
        if command.needs_project and not GRAPH.is_file():
            raise ParamsError(f"{GRAPH}: not in this folder; run this from the project's root")
        command.run(options)
        sys.stdout.flush()
    except MoonshineError as error:
        return _fail(error)
    except BrokenPipeError:
        return 0  # the reader of our output, such as `head`, has closed it
    except OSError as error:
        if error.filename is None:
            reason = error.strerror or error
            return _fail(WriteError(f"standard output, or a file that was open: {reason}; fix this and run it again"))
        return _fail(explain(error, Path(error.filename)))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("moonshine"):
            raise
        return _fail(MachineError(f"{error.name} is not installed; pip install 'moonshine[pipeline]'"))
    except MemoryError:
        return _fail(MachineError("out of memory; lower recipe.batch_size, or run where there is more"))
    except RuntimeError as error:
        if (explained := explain_device_error(error)) is None:
            raise
        return _fail(explained)
    except KeyboardInterrupt:  # before or outside the commands that stop on request
        return _fail(Interrupted(signal.SIGINT, "stopped by SIGINT"))
    return 0


def _fail(error: MoonshineError) -> int:
    """Report what is wrong, one line per mistake; if all processes of a training make it, only the first does.

    A command that finds a folder locked leaves its owner's log alone.
    """
    for line in str(error).splitlines():
        if distributed.IS_MAIN:
            progress.say(f"error: {line}", log=not isinstance(error, LockedError))
        elif not isinstance(error, (DivergedError, Interrupted)):
            print(f"error: process {distributed.RANK}: {line}", file=sys.stderr)
    return error.exit_code
