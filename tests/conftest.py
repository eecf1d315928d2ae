"""What is costly to make and only read by the tests that share it."""

from pathlib import Path

import pytest

from support import copy_project, run, toy_params


@pytest.fixture(scope="session")
def by_snakemake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy experiment after `snakemake`. Copy it to change anything (support.copy_finished)."""
    project = copy_project(tmp_path_factory.mktemp("snakemake") / "project", toy_params())
    run("snakemake", "--cores", "2", cwd=project)
    return project
