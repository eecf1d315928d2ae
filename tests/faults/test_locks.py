"""Two starts at once: one works, the other leaves at once and touches nothing."""

import hashlib
import os
import signal
from pathlib import Path

import pytest

from benchmarks.separate_project import write_params
from tests.faults.experiment import DISTIL, TRAIN, Experiment, Injections
from tests.faults.forked import command, start
from tests.support.project import copy_finished, files_below, run, stages_in, start_until_paused, toy_params


def everything(folder: Path) -> dict[str, tuple[str, int]]:
    """Path -> content and modification time of each file, but the outputs of the processes under test."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("output-")
    }


@pytest.mark.parametrize("arguments", [TRAIN, pytest.param(DISTIL, marks=pytest.mark.slow)], ids=["train", "distil"])
def test_the_second_start_leaves_and_touches_nothing(
    arguments: tuple[str, ...], experiment: Experiment, with_teacher: Path, untrained: Path, injected: Injections
) -> None:
    folder = untrained if arguments is TRAIN else with_teacher
    with injected("two starts at once"):
        first = start(folder, *arguments, pause="training")
        before = everything(folder)
        second = command(folder, *arguments)  # ends although the first one is stopped
        assert second.code == 6
        assert "in use by another process" in second.output
        assert f"process {first.pid} on {os.uname().nodename} since " in second.output
        assert everything(folder) == before
        first.go_on()
        assert first.finish().code == 0
        assert experiment.unharmed(folder)


def test_a_killed_owner_holds_no_lock(experiment: Experiment, untrained: Path, injected: Injections) -> None:
    with injected("a start after kill -9 of the lock's owner"):
        first = start(untrained, *TRAIN, pause="saving")
        first.kill(signal.SIGKILL)
        assert first.finish().code == -9
        assert command(untrained, *TRAIN).code == 0
        assert experiment.unharmed(untrained)


def test_different_runs_go_side_by_side(experiment: Experiment, with_teacher: Path) -> None:
    student = start(with_teacher, *DISTIL, pause="training")
    assert command(with_teacher, *TRAIN).code == 0
    student.go_on()
    assert student.finish().code == 0
    assert experiment.unharmed(with_teacher)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(10))
def test_of_many_starts_at_once_one_works(
    attempt: int, experiment: Experiment, untrained: Path, injected: Injections
) -> None:
    with injected("two starts at once"):
        results = [each.finish() for each in [start(untrained, *TRAIN) for _ in range(4)]]
        assert {result.code for result in results} <= {0, 6}, [result.output for result in results]
        assert [result.code for result in results].count(0) >= 1
        assert experiment.unharmed(untrained)


@pytest.mark.slow
def test_snakemake_deletes_nothing_that_a_stage_of_dvc_reads(by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    params = toy_params()
    params["recipe"]["lr"] = 0.01
    write_params(project, params)
    golden = files_below(project / "data")
    stage = ("dvc", "repro", "--single-item", "train@toy-teacher-0")
    engine = start_until_paused(*stage, cwd=project, phase="training")
    refused = run("snakemake", "--cores", "1", "--forcerun", "prepare", cwd=project, check=False)
    assert refused.returncode != 0
    assert "train@toy-teacher-0 is running here under dvc and reads what would be made again" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert files_below(project / "data") == golden
    assert not list(project.glob(".snakemake/locks/*"))
    run("snakemake", "--dry-run", "--forcerun", "prepare", cwd=project)
    let_go(project)
    engine.wait()


def let_go(project: Path) -> None:
    for process in stages_in(project):
        os.kill(process, signal.SIGCONT)
