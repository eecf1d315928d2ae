"""Checkpoints that survive a crash at any instant.

`step-000000123.pt` is written whole or not at all; then `step-000000123.json` with its sha256 is, and only that
makes it count. Two are kept. The newest is found by its number and loaded only if its hash is right.
"""

import io
import json
import re
from pathlib import Path
from typing import Any

import torch

from moonshine.errors import DataError
from moonshine.files import sha256, write_bytes, write_json
from moonshine.progress import say

KEEP = 2
_NAME = re.compile(r"step-(\d{9})\.pt")


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Commit `state` (tensors, numbers, text, lists and dicts of these) as the checkpoint of `step`."""
    path = folder / f"step-{step:09d}.pt"
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())
    write_json(path.with_suffix(".json"), {"step": step, "bytes": path.stat().st_size, "sha256": sha256(path)})
    for _, old in _committed(folder)[:-KEEP]:
        _remove(old)


def load_newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest state that is whole, or None where none was ever committed.

    A damaged one is set aside as *.corrupt with a warning and the one before is used. Where all are damaged,
    DataError (exit code 3): starting from scratch is for the user to decide.
    """
    committed = _committed(folder)
    for _, path in reversed(committed):
        problem = _damage(path)
        if problem is None:
            return torch.load(path, map_location="cpu", weights_only=True)
        say(f"warning: {path}: {problem}; set aside, using the checkpoint before")
        path.with_suffix(".json").rename(path.with_suffix(".json.corrupt"))
        if path.exists():
            path.rename(path.with_suffix(".pt.corrupt"))
    if committed or any(folder.glob("*.corrupt")):
        raise DataError(f"{folder}: every checkpoint is damaged; delete this folder to start the run from scratch")
    return None


def remove_checkpoints(folder: Path) -> None:
    for path in folder.glob("step-*"):
        path.unlink()


def _committed(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of every checkpoint with a commit record, oldest first; leftovers of a crash are removed."""
    found = []
    for record in folder.glob("step-*.json"):
        path = record.with_suffix(".pt")
        if match := _NAME.fullmatch(path.name):
            found.append((int(match[1]), path))
    for leftover in [*folder.glob(".*.tmp-*"), *folder.glob("step-*.pt")]:
        if leftover not in {path for _, path in found}:
            leftover.unlink()
    return sorted(found)


def _damage(path: Path) -> str | None:
    """What is wrong with a committed checkpoint, or None."""
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        expected = record["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its commit record is damaged ({error})"
    if not path.is_file():
        return "missing"
    return None if sha256(path) == expected else "its sha256 is not the recorded one"


def _remove(path: Path) -> None:
    """The record first: a checkpoint without one does not count, a record without its file is damage."""
    path.with_suffix(".json").unlink()
    path.unlink()
