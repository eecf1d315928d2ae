"""Checkpoints that survive a crash at any instant.

`step-000000123.pt` is written whole or not at all, then `step-000000123.json` with its sha256; only with that file
does it count. Two are kept. The newest is found by its number and loaded only if its hash is right.
"""

import hashlib
import io
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from moonshine.errors import CheckpointError, DataError, SecurityError, WriteError
from moonshine.runtime import files
from moonshine.runtime.files import read_checked_json, sha256, sync_folder, write_bytes, write_checked_json
from moonshine.runtime.progress import say

KEEP = 2
FORMAT = 1
_NAME = re.compile(r"step-(\d{9})\.pt")


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Commit `state` (tensors, numbers, text, lists and dicts of these) as the checkpoint of `step`, unless it exists.

    The folder's name is the run's identity, which the checkpoint carries. The state of a step never changes.
    """
    path = folder / f"step-{step:09d}.pt"
    if path.with_suffix(".json").exists():
        return
    content = _serialised(folder, step, state)
    digest = hashlib.sha256(content).hexdigest()
    write_bytes(path, content)
    if sha256(path) != digest:
        raise WriteError(f"{path}: reads back other bytes than were written; check this disk")
    write_checked_json(path.with_suffix(".json"), {"step": step, "bytes": len(content), "sha256": digest})
    for _, old in _committed(folder)[:-KEEP]:
        _remove(old)


def _serialised(folder: Path, step: int, state: dict[str, Any]) -> memoryview:
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "run": folder.name, "step": step, "state": state}, buffer)
    return buffer.getbuffer()


def load_newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest undamaged state, or None if none was ever committed.

    A damaged one is set aside as *.corrupt with a warning, and the one before is used. Raises DataError (exit code 3)
    if all are damaged, because starting from scratch is for the user to decide; CheckpointError (8) for another run's
    checkpoint; SecurityError (4) for one that would do more than hold values.
    """
    committed = _committed(folder)
    for step, path in reversed(committed):
        try:
            return _load(path, step)
        except DataError as error:
            say(f"warning: {error}; set aside, using the one before")
            _set_aside(path)
    if committed or any(folder.glob("*.corrupt")):
        raise DataError(f"{folder}: every checkpoint is damaged; delete this folder to start the run from scratch")
    return None


def has_checkpoint(folder: Path) -> bool:
    return bool(_committed(folder))


def load_newest_with_step(folder: Path) -> tuple[int, dict[str, Any]]:
    """The step and state of the newest undamaged checkpoint of a run that has one."""
    state = load_newest_checkpoint(folder)
    assert state is not None
    return _committed(folder)[-1][0], state


def _load(path: Path, step: int) -> dict[str, Any]:
    record = read_checked_json(path.with_suffix(".json"), "its checkpoint does not count")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: unreadable ({error.strerror})") from None
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise DataError(f"{path}: its sha256 is not the recorded one")
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        found = {key: checkpoint[key] for key in ("format", "run", "step")}
    except pickle.UnpicklingError:  # torch's own message explains how to load it anyway
        raise SecurityError(f"{path}: not a checkpoint of tensors and plain values alone; delete it") from None
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this program ({error}); delete {path.parent}") from None
    expected = {"format": FORMAT, "run": path.parent.name, "step": step}
    if wrong := [f"{key} {found[key]} instead of {expected[key]}" for key in expected if found[key] != expected[key]]:
        raise CheckpointError(f"{path}: belongs elsewhere: {', '.join(wrong)}; delete it to use the one before")
    return checkpoint["state"]


def require_room_for(folder: Path, states: Sequence[dict[str, Any]]) -> None:
    """Before training: MachineError (exit code 5) unless each state has room for its checkpoints and the next one."""
    needed = sum(len(_serialised(folder, 0, state)) for state in states)
    files.require_room(folder, (KEEP + 1) * needed, f"{KEEP} checkpoints and the next one")


def _committed(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of every checkpoint with a commit record, oldest first; leftovers of a crash are removed."""
    found = []
    for record in folder.glob("step-*.json"):
        path = record.with_suffix(".pt")
        if match := _NAME.fullmatch(path.name):
            found.append((int(match[1]), path))
    for leftover in [*folder.glob(".*.tmp-*"), *folder.glob("step-*.pt")]:
        if leftover not in {path for _, path in found}:
            files.remove(leftover)
    return sorted(found)


def _set_aside(path: Path) -> None:
    """The record last: while it exists, the file does not count as temporary, so a kill between the two is harmless."""
    if path.exists():
        path.rename(path.with_suffix(".pt.corrupt"))
    path.with_suffix(".json").rename(path.with_suffix(".json.corrupt"))
    sync_folder(path.parent)


def _remove(path: Path) -> None:
    """The record first: a checkpoint without one does not count, but a record without its file is damage."""
    files.remove(path.with_suffix(".json"))
    files.remove(path)
