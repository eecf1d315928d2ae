"""Checkpoints count once they are whole, the newest whole one is used, and what is damaged is never used."""

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moonshine.errors import CheckpointError, DataError, MachineError, SecurityError
from moonshine.runs import checkpoints
from moonshine.runs.checkpoints import (
    has_checkpoint,
    load_newest_checkpoint,
    load_newest_with_step,
    require_room_for,
    save_checkpoint,
)
from moonshine.runtime import files
from moonshine.runtime.files import write_checked_json


def state_of(step: int) -> dict[str, Any]:
    return {"weights": {"conv": torch.full((2, 3), float(step))}, "epoch": step, "order": [step, "text"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder with checkpoints of three steps, of which two are kept."""
    path = tmp_path / "0123456789abcdef"
    for step in (1, 2, 30):
        save_checkpoint(path, step, state_of(step))
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def files_of(*steps: int) -> set[str]:
    return {f"step-{step:09d}.{suffix}" for step in steps for suffix in ("pt", "json")}


def commit(folder: Path, step: int, content: bytes) -> Path:
    """Put any bytes in place as the checkpoint of a step, with the record that makes it count."""
    path = folder / f"step-{step:09d}.pt"
    path.write_bytes(content)
    record = {"step": step, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_checked_json(path.with_suffix(".json"), record)
    return path


def require_state(folder: Path, step: int) -> None:
    found, expected = load_newest_checkpoint(folder), state_of(step)
    assert found is not None
    assert torch.equal(found["weights"]["conv"], expected["weights"]["conv"])
    assert (found["epoch"], found["order"]) == (expected["epoch"], expected["order"])


def test_the_newest_is_loaded_as_it_was_saved(folder: Path) -> None:
    require_state(folder, 30)
    assert load_newest_with_step(folder)[0] == 30


def test_two_are_kept(folder: Path) -> None:
    assert names(folder) == files_of(2, 30)


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert load_newest_checkpoint(tmp_path) is None
    assert not has_checkpoint(tmp_path)


def test_a_step_that_is_committed_is_not_written_again(folder: Path) -> None:
    before = (folder / "step-000000030.pt").stat().st_mtime_ns
    save_checkpoint(folder, 30, state_of(31))
    assert (folder / "step-000000030.pt").stat().st_mtime_ns == before
    require_state(folder, 30)


def test_what_a_crash_left_does_not_count_and_is_removed(folder: Path) -> None:
    """The next checkpoint without its record, and one that was being written."""
    (folder / "step-000000031.pt").write_bytes((folder / "step-000000030.pt").read_bytes())
    (folder / ".step-000000032.pt.tmp-0a1b2c3d").touch()
    (folder / "notes.txt").touch()
    assert has_checkpoint(folder)
    require_state(folder, 30)
    assert names(folder) == {*files_of(2, 30), "notes.txt"}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_a_bit, lambda path: path.write_bytes(b"")], ids=["a bit", "all"])
@pytest.mark.parametrize("suffix", [".pt", ".json"])
def test_a_damaged_one_is_set_aside_and_the_one_before_is_used(
    suffix: str, damage: Callable[[Path], object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder / f"step-000000030{suffix}")
    require_state(folder, 2)
    assert "set aside, using the one before" in capsys.readouterr().err
    assert names(folder) == {*files_of(2), "step-000000030.pt.corrupt", "step-000000030.json.corrupt"}
    assert load_newest_with_step(folder)[0] == 2


def test_one_whose_file_is_gone_is_set_aside_as_well(folder: Path) -> None:
    (folder / "step-000000030.pt").unlink()
    require_state(folder, 2)
    assert names(folder) == {*files_of(2), "step-000000030.json.corrupt"}


def test_if_all_are_damaged_the_user_decides_and_is_asked_again(folder: Path) -> None:
    for path in folder.glob("*.pt"):
        path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match=f"^{folder}: every checkpoint is damaged; delete this folder"):
            load_newest_checkpoint(folder)


def test_another_runs_checkpoint_is_refused(folder: Path) -> None:
    other = folder.rename(folder.with_name("fedcba9876543210"))
    wrong = "run 0123456789abcdef instead of fedcba9876543210"
    with pytest.raises(CheckpointError, match=f"step-000000030.pt: belongs elsewhere: {wrong}"):
        load_newest_checkpoint(other)
    assert names(other) == files_of(2, 30)


def test_another_steps_checkpoint_is_refused(folder: Path) -> None:
    commit(folder, 31, (folder / "step-000000030.pt").read_bytes())
    with pytest.raises(CheckpointError, match="belongs elsewhere: step 30 instead of 31"):
        load_newest_checkpoint(folder)


def test_another_versions_format_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    with pytest.raises(CheckpointError, match="belongs elsewhere: format 1 instead of 2"):
        load_newest_checkpoint(folder)


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_one_with_code_in_it_is_refused_and_does_not_run(folder: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"format": 1, "run": folder.name, "step": 31, "state": Touch(folder / "ran")}, buffer)
    commit(folder, 31, buffer.getvalue())
    with pytest.raises(SecurityError, match=r"step-000000031\.pt: .*; delete it$"):
        load_newest_checkpoint(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("content", [{"step": 31}, [31]])
def test_what_torch_reads_but_is_not_a_checkpoint_is_refused(content: Any, folder: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    commit(folder, 31, buffer.getvalue())
    with pytest.raises(CheckpointError, match=r"step-000000031\.pt: not a checkpoint of this program"):
        load_newest_checkpoint(folder)


def test_what_torch_cannot_read_is_refused(folder: Path) -> None:
    commit(folder, 31, pickle.dumps(state_of(31)["order"]))
    with pytest.raises((CheckpointError, SecurityError), match=r"step-000000031\.pt: no"):
        load_newest_checkpoint(folder)


def test_room_is_asked_for_before_training_for_three_of_each(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(folder / "step-000000030.pt").stat().st_size] * 2
    states = [state_of(30), state_of(31)]
    for free in (3 * sum(sizes), 3 * sum(sizes) - 1):
        monkeypatch.setattr(files, "free_bytes", lambda path, free=free: free)
        if free == 3 * sum(sizes):
            require_room_for(folder, states)
        else:
            with pytest.raises(MachineError, match="2 checkpoints and the next one"):
                require_room_for(folder, states)
