"""The folder of one training run until it is published: runs/<experiment>/<row>/seed<k>/<identity>/."""

from pathlib import Path
from typing import Any

from moonshine.errors import CheckpointError, DataError
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.rows import Row
from moonshine.runs.identity import identity_hash, run_identity
from moonshine.runtime import distributed
from moonshine.runtime.differences import differences, in_words
from moonshine.runtime.files import read_checked_json, remove, sha256, write_bytes, write_checked_json
from moonshine.runtime.locks import hold_lock
from moonshine.runtime.progress import say

IDENTITY, ADOPTED = "identity.json", "adopted.json"
RESULT, RESULT_RECORD = "final.safetensors", "final.json"


class RunFolder:
    """One run, and where it is kept."""

    def __init__(self, experiment: str, row: Row, seed: int, identity: dict[str, Any]):
        self.row, self.seed, self.identity = row, seed, identity
        self.parent = artefacts.run_folder(experiment, row, seed)
        self.path = self.parent / identity_hash(identity)

    @classmethod
    def open(cls, params: Params, row: Row, seed: int) -> "RunFolder":
        """The run that these params, code and data ask for, locked until the process ends; a new one is recorded.

        Reads the data manifest, the teacher and the code for their hashes. Raises LockedError (exit code 6) while
        another process has it. Of several processes, the first holds the lock and writes for all.
        """
        run = cls(params.experiment, row, seed, run_identity(params, row, seed))
        if distributed.IS_MAIN:
            claim(run.parent, run.identity)
        return run

    def finish(self, model: bytes, record: dict[str, Any]) -> None:
        """Keep the trained network and how it was made; the record is written last and makes it count."""
        write_bytes(self.path / RESULT, model)
        made = {**record, "run": self.path.name, "sha256": sha256(self.path / RESULT)}
        if (self.path / ADOPTED).exists():
            made["adopted"] = read_checked_json(self.path / ADOPTED, f"delete {self.path} to train again")
        write_checked_json(self.path / RESULT_RECORD, made)
        self._remove_checkpoints()

    def note_adoption(self, origin: dict[str, Any]) -> None:
        """Note an older run that this one continues; the final record will include it."""
        write_checked_json(self.path / ADOPTED, origin)

    def finished(self) -> tuple[bytes, dict[str, Any]] | None:
        """The trained network's file and its record, or None while the run is in progress.

        Raises DataError (exit code 3) if either is damaged, CheckpointError (8) if they are another run's.
        """
        found = self.finished_in(self.path)
        if found:
            self._remove_checkpoints()
        return found

    @staticmethod
    def finished_in(folder: Path) -> tuple[bytes, dict[str, Any]] | None:
        """The same for any run's folder."""
        cure = f"delete {folder} to train again"
        result = folder / RESULT
        if not (folder / RESULT_RECORD).exists():
            return None
        record = read_checked_json(folder / RESULT_RECORD, cure)
        if record.get("run") != folder.name:
            raise CheckpointError(f"{folder / RESULT_RECORD}: belongs to run {record.get('run')}; {cure}")
        if not result.is_file() or sha256(result) != record["sha256"]:
            raise DataError(f"{result}: damaged after the run had finished; {cure}")
        return result.read_bytes(), record

    def _remove_checkpoints(self) -> None:
        for path in [*self.path.glob("step-*"), *self.path.glob(".*.tmp-*")]:
            remove(path)


def claim(parent: Path, identity: dict[str, Any]) -> Path:
    """The folder below `parent` of the run with this identity; `parent` is locked until the process ends.

    A new run is recorded, and what differs from the most similar of the older ones is named. Raises LockedError (exit
    code 6) while another process has it.
    """
    hold_lock(parent)
    path = parent / identity_hash(identity)
    if not (path / IDENTITY).exists():
        if changes := [differences(older, identity) for _, older in older_runs(parent)]:
            fewest = in_words(min(changes, key=len))
            say(f"{parent}: an older run is not resumed because it differs in {fewest}")
        write_checked_json(path / IDENTITY, identity)
    return path


def older_runs(parent: Path) -> list[tuple[Path, dict[str, Any]]]:
    """(folder, identity) of each run of a row and seed whose identity is readable."""
    found = []
    for path in sorted(parent.glob(f"*/{IDENTITY}")):
        try:
            found.append((path.parent, read_checked_json(path, "delete its folder")))
        except DataError as error:
            say(f"warning: {error}")
    return found
