"""Prepared data for searches, and one thread: for networks as small as these, several only wait for each other."""

import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.separate_project import write_params
from tests.faults.forked import command
from tests.support.project import once_per_run
from tests.support.small_search import search_params


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the data are prepared."""

    def make(folder: Path) -> None:
        write_params(folder, search_params())
        result = command(folder, "prepare")
        assert result.code == 0, result.output
        shutil.rmtree(folder / "runs")

    return once_per_run(tmp_path_factory, "data_for_searches", make)


@pytest.fixture
def prepared(data: Path, tmp_path: Path) -> Path:
    """The data, and params with a search and its controls."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copytree(data / "data", folder / "data")
    write_params(folder, search_params())
    return folder
