"""One tiny experiment, what it publishes undisturbed, and counts of what disturbed it."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.separate_project import write_params
from moonshine.runtime.files import sha256
from tests.support.project import toy_params

TRAIN = ("train", "teacher", "--seed", "0")
DISTIL = ("distil", "at/student", "--seed", "0")
STAGES = (("prepare",), TRAIN, DISTIL, ("evaluate", "train/teacher"), ("evaluate", "distil/at/student"))


def tiny_params() -> dict[str, Any]:
    """Two epochs of three steps; a checkpoint after each; random crops, batch norm, momentum."""
    params = toy_params()
    params["recipe"].update(batch_size=400)
    params["machine"] = {"device": "cpu", "checkpoint_steps": 1}
    return params


def artefact_hashes(folder: Path) -> dict[str, str]:
    """Path -> sha256 of all that the experiment publishes and whose bytes are promised."""
    files = [*folder.glob("models/toy/**/*.safetensors"), *folder.glob("results/toy/**/*")]
    return {str(path.relative_to(folder)): sha256(path) for path in files if path.is_file()}


@dataclass(frozen=True)
class Experiment:
    """The finished experiment in `folder`, and what it published."""

    folder: Path
    golden: dict[str, str]

    def copy(self, target: Path, *without: str, params: dict[str, Any] | None = None) -> Path:
        """A copy that lacks some of its folders, perhaps with other params."""
        shutil.copytree(self.folder, target, ignore=lambda _, names: set(without) & set(names))
        if params:
            write_params(target, params)
        return target

    def unharmed(self, folder: Path) -> bool:
        """Whether what was published there, all or a part, has the golden bytes; and something was."""
        found = artefact_hashes(folder)
        return bool(found) and found.items() <= self.golden.items()

    def complete(self, folder: Path) -> bool:
        """Whether all that the experiment publishes is there with the golden bytes, whatever else is."""
        return self.golden.items() <= artefact_hashes(folder).items()


@dataclass
class Case:
    """One injected fault; `lost` is how many training steps had to be done again."""

    lost: int = 0


class Injections:
    """Counts, for each promise, the faults that were injected, those survived, and the most work that one cost.

    Each is also added to the file $FAULTS_COUNTS at once, so that the long form can run in parts (see table.py).
    """

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}

    @contextmanager
    def __call__(self, promise: str) -> Iterator[Case]:
        """Inject one fault and check what came of it within the context."""
        case, survived = Case(), 0
        try:
            yield case
            survived = 1
        finally:
            self.add(promise, survived, case.lost)

    def add(self, promise: str, survived: int = 1, lost: int = 0) -> None:
        _add(self.counts, promise, survived, lost)
        if target := os.environ.get("FAULTS_COUNTS"):
            with Path(target).open("a+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                counts = json.loads(file.read() or "{}")
                _add(counts, promise, survived, lost)
                file.truncate(0)
                file.write(json.dumps(counts, indent=2) + "\n")


def _add(counts: dict[str, dict[str, int]], promise: str, survived: int, lost: int) -> None:
    count = counts.setdefault(promise, {"injected": 0, "survived": 0, "lost": 0})
    count["injected"] += 1
    count["survived"] += survived
    count["lost"] = max(count["lost"], lost)
