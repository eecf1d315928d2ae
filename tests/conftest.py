"""What is costly to make, once per run; limits of time; and a record of what happened for .ci/run."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import start_and_run
from tests.support.project import copy_project, once_per_run, toy_params

MINUTES = int(os.environ.get("TEST_MINUTES", "45"))
"""Of a test's setup, call or teardown, on any machine; one that hangs has failed then, and the others go on."""
NO_TEST_AFTER = float(os.environ.get("NO_TEST_AFTER", "inf"))
"""Seconds since the epoch; tests that would begin later are skipped."""
RECORD = None if "PYTEST_XDIST_WORKER" in os.environ else os.environ.get("TEST_RECORD")
"""A file that gets a line of JSON for each event, from the process to which the workers hand theirs."""


@contextmanager
def limited() -> Iterator[None]:
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"not done within {MINUTES} minutes"))
    signal.alarm(60 * MINUTES)
    try:
        yield
    finally:
        signal.alarm(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    if time.time() > NO_TEST_AFTER:
        pytest.skip("no time was left")
    with limited():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    with limited():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    with limited():
        return (yield)


def note(test: str, outcome: str, reason: str = "") -> None:
    if RECORD:
        with Path(RECORD).open("a") as file:
            file.write(json.dumps({"test": test, "outcome": outcome, "reason": reason}) + "\n")


def reason_of(report: Any) -> str:
    """Why a test failed or was skipped, in a line: an assertion's first line, and what it compared or its last line."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    first, *others = [line.strip() for line in text.splitlines()] or [""]
    compared = [line for line in others if line.startswith("assert ")] or [line for line in others if line][-1:]
    return " ... ".join([first, *compared[:1]])


def pytest_runtest_logstart(nodeid: str) -> None:
    note(nodeid, "started")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.outcome != "passed":
        note(report.nodeid, report.outcome, reason_of(report))
    elif report.when == "call":
        note(report.nodeid, "passed")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.outcome != "passed":
        note(report.nodeid, report.outcome, reason_of(report))


@pytest.fixture(scope="session")
def by_snakemake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy experiment after `snakemake`. Copy it to change anything or run in it (support.project.copy_finished)."""

    def make(folder: Path) -> None:
        start_and_run("snakemake", "--cores", "2", cwd=copy_project(folder / "project", toy_params()))

    return once_per_run(tmp_path_factory, "by_snakemake", make) / "project"
