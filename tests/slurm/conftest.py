"""No test without a cluster that runs jobs; and a test that hits its time limit says what went on meanwhile."""

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import jobs_and_nodes, said_by_snakemake, why_unusable


@pytest.fixture(scope="session", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> None:
    if reason := why_unusable(tmp_path_factory.mktemp("cluster")):
        pytest.skip(f"no usable SLURM cluster: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Iterator[None]:
    try:
        return (yield)
    except pytest.fail.Exception as failure:  # the limit of time, which comes from tests/conftest.py
        snakemake = said_by_snakemake(item.funcargs["tmp_path"])
        pytest.fail(f"{failure.msg}; Snakemake: {snakemake}; {jobs_and_nodes()}")
