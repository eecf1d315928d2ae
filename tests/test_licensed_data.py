"""Licensed data is hashed once, lies on the disk once, and is never pushed."""

import re
from pathlib import Path

import pytest

from support import copy_finished, environment, moonshine, run
from test_agreement import params_change, planned_by_dvc, planned_by_snakemake

BIG = "data/digits/train.arrow"
SIZE = 300_000_000


def bytes_read(*command: str, project: Path, log: Path) -> int:
    """How much of the big file a command and its children read."""
    calls = "trace=read,pread64,readv,preadv,copy_file_range,sendfile,mmap"
    run("strace", "-f", "-y", "-qq", "-e", calls, "-o", str(log), *command, cwd=project)
    with log.open(errors="replace") as lines:
        own = [line for line in lines if BIG in line]
    assert not any("mmap(" in line for line in own)
    return sum(int(found[1]) for line in own if (found := re.search(r"= (\d+)$", line)))


@pytest.mark.slow
def test_hashed_once_on_the_disk_once_never_pushed(by_snakemake: Path, tmp_path: Path) -> None:
    project, log = copy_finished(by_snakemake, tmp_path / "project"), tmp_path / "strace"
    params_change(dataset__shared=[], dataset__licensed=["digits"])(project)
    run("snakemake", "--cores", "1", "data/digits/manifest.json", cwd=project)
    assert "prepare_licensed@digits" not in planned_by_dvc(project)
    with (project / BIG).open("r+b") as file:  # as large as makes a copy or a second reading show
        file.truncate(SIZE)
    python = environment()["PATH"].split(":")[0] + "/python"
    as_recorded = "from moonshine.engines.record import *; commit(Repo(), ['prepare_licensed@digits'])"
    assert bytes_read(python, "-c", as_recorded, project=project, log=log) == SIZE

    sync = (python, "-m", "moonshine", "sync")
    assert bytes_read(*sync, project=project, log=log) == 0
    assert "Snakemake and dvc.lock agree" in moonshine("sync", cwd=project).stderr
    for command in (("dvc", "status"), ("snakemake", "--dry-run"), sync):
        assert bytes_read(*command, project=project, log=log) == 0
    planned = planned_by_dvc(project)
    assert planned == planned_by_snakemake(project)
    assert "prepare_licensed@digits" not in planned, "the data is as it was recorded, only its time has changed"

    assert (project / BIG).stat().st_nlink == 1
    assert sum(path.stat().st_size for path in (project / ".dvc/cache").rglob("*") if path.is_file()) < SIZE / 10
    remote = tmp_path / "remote"
    run("dvc", "remote", "add", "--default", "storage", str(remote), cwd=project)
    run("dvc", "push", cwd=project)
    sizes = [path.stat().st_size for path in remote.rglob("*") if path.is_file()]
    assert sizes
    assert max(sizes) < SIZE / 10
