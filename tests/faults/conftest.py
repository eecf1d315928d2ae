"""One tiny experiment, run once undisturbed: what every disturbed run has to end with."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faults.forked import command
from moonshine.files import sha256
from support import toy_params, write_params

TRAIN = ("train", "teacher", "--seed", "0")
DISTIL = ("distil", "at/student", "--seed", "0")
STAGES = (("prepare",), TRAIN, DISTIL, ("evaluate", "train/teacher"), ("evaluate", "distil/at/student"))


def tiny_params() -> dict[str, Any]:
    """Two epochs of three steps; a checkpoint after each; random crops, batch norm, momentum."""
    params = toy_params()
    params["recipe"].update(batch_size=400)
    params["machine"] = {"device": "cpu", "checkpoint_steps": 1}
    return params


def artefacts(folder: Path) -> dict[str, str]:
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
        found = artefacts(folder)
        return bool(found) and found.items() <= self.golden.items()


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("golden")
    write_params(folder, tiny_params())
    for arguments in STAGES:
        result = command(folder, *arguments)
        assert result.code == 0, result.output
    return Experiment(folder, artefacts(folder))


@pytest.fixture
def untrained(experiment: Experiment, tmp_path: Path) -> Path:
    """Data alone."""
    return experiment.copy(tmp_path / "untrained", "runs", "models", "results", "logs")


@pytest.fixture
def with_teacher(experiment: Experiment, tmp_path: Path) -> Path:
    """Data, and the teacher's stage finished."""
    return experiment.copy(tmp_path / "with-teacher", "results", "logs", "distil")
