"""One tiny experiment, run once undisturbed: what every disturbed run has to end with."""

import json
import os
from pathlib import Path

import pytest

from faults.experiment import STAGES, Experiment, Injections, artefacts, tiny_params
from faults.forked import command
from support import write_params


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


INJECTIONS = Injections()


@pytest.fixture
def injected() -> Injections:
    return INJECTIONS


def pytest_sessionfinish() -> None:
    """Add the counts of this session to those of other parts of the long form (see table.py)."""
    if (target := os.environ.get("FAULTS_COUNTS")) and INJECTIONS.counts:
        path = Path(target)
        known = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**known, **INJECTIONS.counts}, indent=2) + "\n")
