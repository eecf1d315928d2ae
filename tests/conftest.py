"""What is costly to make and only read by the tests that share it; and an end of tests that hang."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import copy_project, run, toy_params

MINUTES = 45
"""Of a test, on any machine; one that hangs has failed then, and the others go on."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"not done within {MINUTES} minutes"))
    signal.alarm(60 * MINUTES)
    try:
        return (yield)
    finally:
        signal.alarm(0)


@pytest.fixture(scope="session")
def by_snakemake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy experiment after `snakemake`. Copy it to change anything (support.copy_finished)."""
    project = copy_project(tmp_path_factory.mktemp("snakemake") / "project", toy_params())
    run("snakemake", "--cores", "2", cwd=project)
    return project
