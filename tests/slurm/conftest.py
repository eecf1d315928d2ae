"""What the cluster was doing when a test of it failed: without that, a test that hangs tells nothing."""

import subprocess
from collections.abc import Iterator

import pytest


def answer(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return " ".join((done.stdout + done.stderr).split()) or "none"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    try:
        return (yield)
    except pytest.fail.Exception as failure:  # the limit of time, which comes from tests/conftest.py
        jobs = answer("squeue", "--noheader", "--format=%i %T %r;")
        nodes = answer("sinfo", "--noheader", "--format=%T %E;")
        pytest.fail(f"{failure.msg}; nodes: {nodes} jobs: {jobs}")
