"""Students trained together have the bytes that they have alone."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.separate_project import write_params
from moonshine.runtime import control_groups
from moonshine.runtime.files import sha256
from moonshine.training import memory
from moonshine.training.memory import Need, batches_of_students
from tests.support.project import run_moonshine, start_until_paused, toy_params


def three_students() -> dict[str, Any]:
    params = toy_params()
    params["networks"]["half"] = {**params["networks"]["teacher"], "channels": [4, 4, 4, 8]}
    params["networks"]["same"] = params["networks"]["teacher"]
    params["distil"]["networks"] = ["student", "half", "same"]
    params["recipe"]["batch_size"] = 300
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a teacher."""
    folder = tmp_path_factory.mktemp("together")
    write_params(folder, three_students())
    run_moonshine("prepare", cwd=folder)
    run_moonshine("train", "teacher", "--seed", "0", cwd=folder)
    return folder


def finished(folder: Path) -> dict[str, str]:
    """Student -> sha256 of what its run left in runs/."""
    return {path.parts[-4]: sha256(path) for path in folder.glob("runs/toy/distil/at/*/seed0/*/final.safetensors")}


def test_together_or_alone_gives_the_same_bytes(project: Path, tmp_path: Path) -> None:
    together, alone = (shutil.copytree(project, tmp_path / name) for name in ("together", "alone"))
    run_moonshine("distil", "--together", "--seed", "0", cwd=together)
    for student in ("student", "half"):
        run_moonshine("distil", f"at/{student}", "--seed", "0", cwd=alone)
        assert finished(alone)[student] == finished(together)[student]
    assert len(set(finished(together).values())) == 3
    # the stage of a row then publishes what lies there, without importing torch
    result = run_moonshine("distil", "at/same", "--seed", "0", cwd=together, PYTHONPROFILEIMPORTTIME="1")
    assert sha256(together / "models/toy/distil/at/same/seed0.safetensors") == finished(together)["same"]
    assert "| torch\n" not in result.stderr.replace(" ", "")


@pytest.mark.slow
def test_killed_together_they_go_on_together_or_alone(project: Path, tmp_path: Path) -> None:
    """kill -9 between two checkpoints; one student then goes on by itself, the others in company, to the same bytes."""
    undisturbed, killed = (shutil.copytree(project, tmp_path / name) for name in ("undisturbed", "killed"))
    params = three_students()
    params["machine"]["checkpoint_steps"] = 1
    write_params(killed, params)
    command = (sys.executable, "-m", "moonshine", "distil", "--together", "--seed", "0")
    process = start_until_paused(*command, cwd=killed, phase="end of epoch")
    process.kill()
    process.wait()
    assert not finished(killed)
    alone = run_moonshine("distil", "at/half", "--seed", "0", cwd=killed)
    assert "resuming from epoch" in alone.stderr
    run_moonshine("distil", "--together", "--seed", "0", cwd=killed)
    run_moonshine("distil", "--together", "--seed", "0", cwd=undisturbed)
    assert finished(killed) == finished(undisturbed)


@pytest.mark.slow
def test_a_student_that_diverges_leaves_the_others_alone(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "project")
    params = three_students()
    params["methods"]["wild"] = {"beta": 1e30, "groups": [1, 2, 3, 4]}
    params["distil"] = {"networks": ["student"], "methods": ["at", "wild"]}
    write_params(tmp_path / "project", params)
    result = run_moonshine("distil", "--together", "--seed", "0", cwd=tmp_path / "project", check=False)
    assert result.returncode == 7
    assert "distil/wild/student seed 0: loss or gradient not finite in epoch 1, step" in result.stderr
    assert len(list((tmp_path / "project/runs/toy/distil/at/student/seed0").glob("*/final.safetensors"))) == 1
    assert not list((tmp_path / "project/runs/toy/distil/wild/student/seed0").glob("*/final.safetensors"))


@pytest.mark.slow
def test_needs_are_measured_and_reported(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "project")
    result = run_moonshine("distil", "--together", "at/student", "at/same", "--seed", "0", cwd=tmp_path / "project")
    assert result.stderr.count("MB more in its step") == 2
    records = (tmp_path / "project/runs/toy/distil/at").glob("*/seed0/*/final.json")
    assert {len(json.loads(path.read_text())["history"]) for path in records} == {2}


def test_groups_hold_what_fits() -> None:
    small, greedy = Need(lasting=10, passing=100), Need(lasting=10, passing=600)
    assert batches_of_students([small] * 5, free=1000) == [[0, 1, 2, 3, 4]]
    assert batches_of_students([small] * 4, free=140) == [[0, 1], [2, 3]]
    assert batches_of_students([small, greedy, small], free=500) == [[0], [1], [2]]
    assert batches_of_students([greedy], free=1) == [[0]]


def control_group(folder: Path, **contents: object) -> None:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name.replace("memory_", "memory.")).write_text(f"{content}\n")


@pytest.mark.parametrize(
    ("membership", "free"),
    [
        ("0::/job/step\n", 700),  # the limit is that of the job around the step
        ("0::/elsewhere\n", 5000),
        ("0::/\n", 5000),
        ("5:cpu:/v1\n4:memory:/v1\n0::/\n", 300),
        ("", 10**6),
    ],
    ids=["a job's step", "a group not seen here", "the root", "version 1", "no groups"],
)
def test_control_groups_limit_what_is_free(
    membership: str, free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "cgroup"
    control_group(root, memory_max=9000, memory_current=4000, memory_stat="anon 1\ninactive_file 0")
    control_group(root / "job", memory_max=1000, memory_current=900, memory_stat="anon 1\ninactive_file 600")
    control_group(root / "job/step", memory_max="max", memory_current=800, memory_stat="inactive_file 600")
    control_group(
        root / "memory/v1",
        memory_limit_in_bytes=1000,
        memory_usage_in_bytes=900,
        memory_stat="inactive_file 1\ntotal_inactive_file 200",
    )
    (tmp_path / "memberships").write_text(membership)
    monkeypatch.setattr(control_groups, "CONTROL_GROUPS", root)
    monkeypatch.setattr(control_groups, "MEMBERSHIPS", tmp_path / "memberships")
    monkeypatch.setattr(memory, "_available", lambda: 10**6)
    assert memory.free_memory(torch.device("cpu"), 4) == free


def test_what_the_allocator_keeps_on_a_gpu_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 300)
    assert memory.free_memory(torch.device("cuda"), 1) == 1200


def test_a_job_plans_with_its_share_of_a_gpu_that_others_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it is alone there as yet; and with no more than is free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (8000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 300)
    free = [memory.free_memory(torch.device("cuda"), trainings_per_gpu) for trainings_per_gpu in (1, 2, 3)]
    assert free == [8200, 4200, 2700]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 9000))
    assert memory.free_memory(torch.device("cuda"), 2) == 1200


def test_several_students_need_the_word_together(project: Path) -> None:
    result = run_moonshine("distil", "at/student", "at/half", "--seed", "0", cwd=project, check=False)
    assert result.returncode == 2
    assert "distil takes one METHOD/NETWORK, or --together" in result.stderr
