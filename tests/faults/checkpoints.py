"""A training that is killed at a checkpoint of choice."""

import signal
from functools import partial
from pathlib import Path

from tests.faults.experiment import TRAIN
from tests.faults.forked import Command, start
from tests.faults.phases import stop_after_checkpoint


def committed(folder: Path) -> list[Path]:
    """Checkpoints by their number."""
    return sorted(path.with_suffix(".pt") for path in folder.glob("runs/toy/*/**/step-*.json"))


def stop_at(folder: Path, number: int, arguments: tuple[str, ...] = TRAIN) -> None:
    """Run, and kill -9 once the checkpoint of this number is committed."""
    running = start(folder, *arguments, prepare=partial(stop_after_checkpoint, number))
    assert running.wait_until(Command.paused), running.finish().output
    running.kill()
    assert running.finish().code == -signal.SIGKILL
    assert committed(folder)[-1].name == f"step-{number:09d}.pt"
