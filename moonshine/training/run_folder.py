"""The folder in which one training lives until it is published: runs/<experiment>/<row>/seed<k>/<identity>/."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from moonshine import artefacts
from moonshine.errors import DataError, LockedError, MachineError
from moonshine.files import sha256, write_bytes, write_json
from moonshine.params import Params
from moonshine.progress import say
from moonshine.training.identity import differences, identity_hash, run_identity

IDENTITY, RESULT, RESULT_RECORD, LOCK = "identity.json", "final.safetensors", "final.json", "lock"


class RunFolder:
    """One run, locked from construction to the end of the process."""

    def __init__(self, params: Params, row: str, seed: int):
        self.row, self.seed, self.identity = row, seed, run_identity(params, row, seed)
        self.parent = artefacts.run_folder(params.experiment, row, seed)
        self.path = self.parent / identity_hash(self.identity)
        try:
            self.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.parent / LOCK)
            if not (self.path / IDENTITY).exists():
                self._say_why_anew()
                write_json(self.path / IDENTITY, self.identity)
        except PermissionError as error:
            raise MachineError(f"{error.filename}: {error.strerror}; make the folder writable") from None

    def _say_why_anew(self) -> None:
        older = sorted(self.parent.glob(f"*/{IDENTITY}"), key=lambda path: path.stat().st_mtime)
        if older:
            changed = differences(json.loads(older[-1].read_text()), self.identity)
            say(f"{self.parent}: an older run is not resumed, for it differs in {'; '.join(changed)}")

    def finish(self, model: bytes, record: dict[str, Any]) -> None:
        """Keep the trained network and how it was made; the record is written last and makes it count."""
        write_bytes(self.path / RESULT, model)
        write_json(self.path / RESULT_RECORD, {**record, "sha256": sha256(self.path / RESULT)})

    def finished(self) -> tuple[bytes, dict[str, Any]] | None:
        """The trained network's file and its record, or None while the run is under way."""
        record_path, result = self.path / RESULT_RECORD, self.path / RESULT
        if not record_path.exists():
            return None
        try:
            record = json.loads(record_path.read_text())
            if sha256(result) == record["sha256"]:
                return result.read_bytes(), record
        except (OSError, ValueError, KeyError):
            pass
        raise DataError(f"{result}: damaged after the run had finished; delete {self.path} to train again")


def _lock(path: Path) -> int:
    """Take a lock that the kernel releases when the process ends, however it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 1000).decode(errors="replace").strip()
        os.close(descriptor)
        raise LockedError(
            f"{path.parent}: another process works on this run ({owner}); wait for it or stop it"
        ) from None
    os.ftruncate(descriptor, 0)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {started}\n".encode())
    return descriptor
