"""Several processes train one network: what they share, what only the first does, and how they end."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.separate_project import ROOT, write_params
from moonshine.runtime import torchrun
from moonshine.runtime.files import sha256
from tests.support.project import held, run, run_moonshine, start_until_paused, toy_params

MODEL = "models/toy/train/teacher/seed0.safetensors"


def params_of_two() -> dict[str, Any]:
    return params_of(2)


def params_of(processes: int) -> dict[str, Any]:
    params = toy_params()
    params["recipe"].update(processes=processes, batch_size=100)  # 1,197 images: the last batch of 97 splits unevenly
    return params


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes") / "project"
    folder.mkdir()
    write_params(folder, params_of_two())
    run_moonshine("prepare", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path) -> tuple[Path, str]:
    """A project whose teacher two processes trained, and what they said."""
    project = shutil.copytree(data, data.parent / "trained")
    return project, run_moonshine("train", "teacher", "--seed", "0", cwd=project).stderr


def run_torchrun(*command: str, cwd: Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    return run(
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *command,
        cwd=cwd,
    )  # fmt: skip


@pytest.fixture(scope="module")
def steps(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What two processes saw and computed, and what one did."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    script = str(ROOT / "tests/support/two_processes.py")
    run_torchrun(script, str(data), str(two), cwd=data)
    run(sys.executable, script, str(data), str(one), cwd=data)
    return two, one


@pytest.mark.slow
def test_every_image_is_seen_exactly_once_an_epoch(steps: tuple[Path, Path]) -> None:
    shares = [json.loads((steps[0] / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    alone = json.loads((steps[1] / "seen-0.json").read_text())
    for epoch in (0, 1):
        together = [first + second for first, second in zip(shares[0]["train"][epoch], shares[1]["train"][epoch])]
        assert together == alone["train"][epoch]  # the same batches, in the same order
        assert sorted(label for batch in together for label in batch) == list(range(1197))
    assert [len(batch) for batch in shares[0]["train"][0]] == [50] * 11 + [49]
    assert sorted(shares[0]["val"] + shares[1]["val"]) == alone["val"] == list(range(600))
    assert len(shares[0]["val"]) == len(shares[1]["val"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradients", "gradients-mixed"])
def test_the_gradient_is_that_of_the_whole_batch(name: str, steps: tuple[Path, Path]) -> None:
    """With batch norm in eval mode; a batch of 7 makes shares of 4 and 3, mixed or not."""
    first, second, alone = (
        torch.load(folder / f"{name}-{rank}.pt") for folder, rank in ((steps[0], 0), (steps[0], 1), (steps[1], 0))
    )
    for name, gradient in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], gradient, rtol=1e-4, atol=1e-6)
    assert sum(float(gradient.abs().sum()) for gradient in alone.values()) > 1


def test_only_the_first_process_speaks_and_writes(trained: tuple[Path, str]) -> None:
    project, said = trained
    log = (project / "logs/toy/train/teacher/seed0.log").read_text()
    for message in ("epoch 1/2", "epoch 2/2", f"{MODEL}: val top-1 error"):
        assert (said.count(message), log.count(message)) == (1, 1)
    (folder,) = (project / "runs/toy/train/teacher/seed0").glob("*/")
    assert not list(folder.glob("*.tmp-*"))


def test_the_number_of_processes_is_part_of_the_run(trained: tuple[Path, str], tmp_path: Path) -> None:
    project = shutil.copytree(trained[0], tmp_path / "project")
    params = params_of_two()
    del params["recipe"]["processes"]
    write_params(project, params)
    result = run_moonshine("train", "teacher", "--seed", "0", cwd=project)
    assert "an older run is not resumed because it differs in recipe.processes: 2 -> None" in result.stderr
    assert sha256(project / MODEL) != sha256(trained[0] / MODEL)


@pytest.mark.slow
def test_torchrun_by_hand_gives_the_same_bytes(trained: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    project = shutil.copytree(data, tmp_path / "project")
    run_torchrun("-m", "moonshine", "train", "teacher", "--seed", "0", cwd=project)
    assert sha256(project / MODEL) == sha256(trained[0] / MODEL)


@pytest.mark.parametrize(
    ("arguments", "processes", "message"),
    [
        (("train", "teacher", "--seed", "0"), "3", "recipe.processes: 2, but torchrun started 3; make them equal"),
        (("evaluate", "train/teacher"), "2", "torchrun starts train and distil; run other commands without it"),
    ],
)
def test_torchrun_that_contradicts_the_recipe_is_refused(
    arguments: tuple[str, ...], processes: str, message: str, data: Path
) -> None:
    started = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": processes, "RANK": "0", "LOCAL_RANK": "0"}
    result = run_moonshine(*arguments, cwd=data, check=False, **started)
    assert (result.returncode, result.stderr) == (2, f"error: {message}\n")


@pytest.mark.slow
def test_a_batch_that_not_all_can_share_is_refused(data: Path, tmp_path: Path) -> None:
    project = shutil.copytree(data, tmp_path / "project")
    params = params_of_two()
    params["recipe"]["batch_size"] = 92  # 1,197 = 13 * 92 + 1
    write_params(project, params)
    result = run_moonshine("train", "teacher", "--seed", "0", cwd=project, check=False)
    assert result.returncode == 2
    assert "recipe.batch_size: 92 leaves a last batch of 1 of 1197 images, too few for 2 processes" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "batch_size", "last"), [(1, 92, "1 of"), (2, 199, "3 of")])
def test_a_share_of_one_image_is_refused_where_batch_norm_needs_more(
    processes: int, batch_size: int, last: str, tmp_path: Path
) -> None:
    """Here its last maps are of one position."""
    params = params_of_two()
    params["recipe"].update(batch_size=batch_size, processes=processes, epochs=1, lr_steps=[])
    params["dataset"]["size"] = 8
    write_params(tmp_path, params)
    run_moonshine("prepare", cwd=tmp_path)
    result = run_moonshine("train", "teacher", "--seed", "0", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert f"recipe.batch_size: {batch_size} leaves a last batch of {last} 1197 images" in result.stderr
    assert "too few for the batch norm of train/teacher; choose another" in result.stderr
    assert "Traceback" not in result.stderr


def children(parent: int) -> dict[int, int]:
    """Rank -> process id of those that torchrun's agent in `parent` started."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == parent:
                variables = dict(v.split("=", 1) for v in (stat.parent / "environ").read_text().split("\0") if "=" in v)
                found[int(variables["RANK"])] = int(stat.parent.name)
        except (OSError, KeyError):
            continue
    return found


@pytest.mark.parametrize(
    ("codes", "expected"), [((5, -15), 5), ((5, 7, -15), 7), ((-9, 5, 5), 137), ((-15, -15), 143), ((1, 5), 1)]
)
def test_the_exit_code_is_that_of_the_cause_not_of_its_consequences(codes: tuple[int, ...], expected: int) -> None:
    """Where a process ends, its peers end with 5, or with the SIGTERM that torchrun sends them."""
    assert torchrun._exit_code(codes) == expected


@pytest.mark.slow
def test_processes_that_cannot_connect_say_why(data: Path, tmp_path: Path) -> None:
    project = shutil.copytree(data, tmp_path / "project")
    result = run_moonshine("train", "teacher", "--seed", "0", cwd=project, check=False, GLOO_SOCKET_IFNAME="nope0")
    assert result.returncode == 5
    assert "error: the processes of this training cannot connect (" in result.stderr
    assert "nope0" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_three_processes_resume_to_the_same_bytes(tmp_path: Path) -> None:
    """From three on, the order in which they add their gradients shows: a sum of two has only one."""
    run_torchrun(str(ROOT / "tests/support/resumed_in_processes.py"), str(tmp_path), cwd=ROOT, processes=3)
    ended = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(ended) == [f"{name}-{rank}" for name in ("resumed", "whole") for rank in range(3)]
    assert len(set(ended.values())) == 1, ended


@contextmanager
def held_at_end_of_epoch(project: Path, processes: int) -> Iterator[subprocess.Popen[str]]:
    command = (sys.executable, "-m", "moonshine", "train", "teacher", "--seed", "0")
    training = start_until_paused(*command, cwd=project, phase="end of epoch", processes=processes)
    with held(project):
        yield training


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_killed_and_stopped_processes_end_the_job_and_it_resumes(processes: int, data: Path, tmp_path: Path) -> None:
    params = params_of(processes)
    params["recipe"].update(epochs=6, lr_steps=[3])
    params["machine"] = {"device": "cpu", "checkpoint_steps": 3}
    unharmed, project = (shutil.copytree(data, tmp_path / name) for name in ("unharmed", "project"))
    for folder in (unharmed, project):
        write_params(folder, params)
    run_moonshine("train", "teacher", "--seed", "0", cwd=unharmed)

    for rank in (1, 0):
        with held_at_end_of_epoch(project, processes) as training:
            os.kill(children(training.pid)[rank], signal.SIGKILL)
        _, said = training.communicate()
        assert training.returncode == 137
        assert "error: a process was killed by SIGKILL; the same command resumes from the last checkpoint" in said
        assert "Traceback" not in said
    for number in (signal.SIGTERM, signal.SIGUSR1):
        with held_at_end_of_epoch(project, processes) as training:
            training.send_signal(number)
        _, said = training.communicate()
        assert training.returncode == 128 + number
        assert f"stopped by {number.name}: a checkpoint is saved" in said
        assert "Traceback" not in said
    said = run_moonshine("train", "teacher", "--seed", "0", cwd=project).stderr
    assert "resuming from epoch" in said
    assert sha256(project / MODEL) == sha256(unharmed / MODEL)
