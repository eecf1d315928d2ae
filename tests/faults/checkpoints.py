"""A training that is killed at a checkpoint of choice."""

import hashlib
import io
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from moonshine.runtime.files import read_checked_json, write_checked_json
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


State = dict[str, Any]


def edit_newest(folder: Path, edit: Callable[[State], None]) -> None:
    """Change the newest checkpoint and make its commit record fit."""
    path = committed(folder)[-1]
    checkpoint = torch.load(path, weights_only=True)
    edit(checkpoint["state"])
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    path.write_bytes(buffer.getvalue())
    record = read_checked_json(path.with_suffix(".json"), "")
    write_checked_json(path.with_suffix(".json"), {**record, "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()})
