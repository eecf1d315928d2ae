"""One tiny experiment, run once undisturbed: what every disturbed run has to end with."""

from pathlib import Path

import pytest

from benchmarks.separate_project import write_params
from tests.faults.experiment import STAGES, Experiment, Injections, artefact_hashes, tiny_params
from tests.faults.forked import command
from tests.support.project import once_per_run


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Copy it to change anything or run in it."""

    def make(folder: Path) -> None:
        write_params(folder, tiny_params())
        for arguments in STAGES:
            result = command(folder, *arguments)
            assert result.code == 0, result.output

    folder = once_per_run(tmp_path_factory, "golden", make)
    return Experiment(folder, artefact_hashes(folder))


@pytest.fixture
def untrained(experiment: Experiment, tmp_path: Path) -> Path:
    """Data alone."""
    return experiment.copy(tmp_path / "untrained", "runs", "models", "results", "logs")


@pytest.fixture
def with_teacher(experiment: Experiment, tmp_path: Path) -> Path:
    """Data, and the teacher's stage finished."""
    return experiment.copy(tmp_path / "with-teacher", "results", "logs", "distil")


INJECTIONS = Injections()


@pytest.fixture
def injected() -> Injections:
    return INJECTIONS
