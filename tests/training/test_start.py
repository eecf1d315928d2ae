"""Where a network's weights begin: a file, the teacher, or random as without `init`; through the command line."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.separate_project import write_params
from moonshine.runtime.files import sha256
from tests.support.project import run_moonshine, start_until_paused, toy_params

TEACHER, STUDENT, CONTROL = (
    f"models/toy/{row}/seed0.safetensors" for row in ("train/teacher", "distil/at/student", "train/student")
)
SEED = ("--seed", "0")


def params_with(**init: Any) -> dict[str, Any]:
    """The toy experiment with `init` for some of its networks."""
    params = toy_params()
    for name, value in init.items():
        params["networks"][name]["init"] = value
    return params


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a teacher and a student that begins at random."""
    folder = tmp_path_factory.mktemp("start")
    write_params(folder, toy_params())
    run_moonshine("prepare", cwd=folder)
    run_moonshine("train", "teacher", *SEED, cwd=folder)
    run_moonshine("distil", "at/student", *SEED, cwd=folder)
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "project")


def published(project: Path, classes: int = 1000) -> dict[str, str]:
    """The teacher's weights as a wrapped file in half precision with another head, as `init` names it."""
    state = {f"module.{name}": tensor.half() for name, tensor in load_file(project / TEACHER).items()}
    state |= {"module.fc.weight": torch.zeros(classes, 8), "module.fc.bias": torch.zeros(classes)}
    torch.save({"state_dict": state, "epoch": 90}, project / "net.pth")
    return {"url": "net.pth", "sha256": sha256(project / "net.pth")}


def identity(project: Path, row: str) -> dict[str, Any]:
    return json.loads((project / f"models/toy/records/{row}/seed0.json").read_text())["identity"]


def first_epoch(project: Path, row: str) -> str:
    return (project / f"results/toy/curves/{row}/seed0.csv").read_text().splitlines()[1]


def refusal(project: Path, params: dict[str, Any], *command: str, code: int) -> str:
    """The one line of a command that must fail, before it has trained anything."""
    write_params(project, params)
    runs = sorted(project.glob("runs/**/step-*"))
    result = run_moonshine(*command, cwd=project, check=False)
    assert result.returncode == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "epoch 1/" not in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(project.glob("runs/**/step-*")) == runs
    return errors[0]


def test_a_student_and_its_control_begin_with_their_teachers_weights(trained: Path, project: Path) -> None:
    params = params_with(student="teacher")
    params["train_from_teacher"] = ["student"]
    write_params(project, params)
    said = run_moonshine("distil", "at/student", *SEED, cwd=project).stderr
    given, own = load_file(project / TEACHER), load_file(trained / STUDENT)
    fitting = [name for name in given if name in own and given[name].shape == own[name].shape]
    assert 0 < len(fitting) < len(given)
    words = f"begins with {len(fitting)} of the {len(given)} tensors of train/teacher/seed0, those that fit"
    assert f"distil/at/student: {words}" in said
    assert "an older run is not resumed because it differs in init: None -> teacher" in said
    assert first_epoch(project, "distil/at/student") != first_epoch(trained, "distil/at/student")
    assert identity(project, "distil/at/student")["init"] == "teacher"
    assert "init" not in identity(project, "train/teacher")
    run_moonshine("train", "student", *SEED, cwd=project)
    made = identity(project, "train/student")
    assert (made["init"], made["teacher"]) == ("teacher", sha256(project / TEACHER))

    record = project / "models/toy/records/train/teacher/seed0.json"
    record.write_text(record.read_text().replace(sha256(project / TEACHER), "0" * 64))
    refused = refusal(project, params, "train", "student", *SEED, code=3)
    assert TEACHER in refused
    assert "damaged or replaced" in refused


def test_a_network_begins_with_a_published_file_and_a_new_head(trained: Path, project: Path) -> None:
    init = published(project)
    params = params_with(teacher=init)
    params["recipe"].update(epochs=1, lr_steps=[], lr=1e-12, momentum=0.0)  # so that weights stay where they begin
    write_params(project, params)
    said = run_moonshine("train", "teacher", *SEED, cwd=project).stderr
    state = load_file(trained / TEACHER)
    assert ", global batch size 128, 1 epoch, lr 1e-12, cpu, 1 thread\n" in said
    assert f"train/teacher: begins with {len(state) - 2} tensors of net.pth; its classifier head is new" in said
    assert 'net.pth: took the entry state_dict, not epoch; removed "module." before all names' in said
    assert said.count("begins with") == said.count("took the entry") == 1
    assert identity(project, "train/teacher")["init"] == init["sha256"]
    begun = load_file(project / TEACHER)
    assert torch.allclose(begun["layer4.0.conv1.weight"], state["layer4.0.conv1.weight"].half().float(), atol=1e-6)

    del params["networks"]["teacher"]["init"]
    write_params(project, params)
    run_moonshine("train", "teacher", *SEED, cwd=project)
    assert torch.allclose(begun["fc.weight"], load_file(project / TEACHER)["fc.weight"], atol=1e-6), "another new head"


def test_another_file_makes_the_network_outdated_and_another_address_does_not(project: Path) -> None:
    params = params_with(teacher=published(project))
    write_params(project, params)
    run_moonshine("train", "teacher", *SEED, cwd=project)
    runs = sorted(path.name for path in project.glob("runs/toy/train/teacher/seed0/*"))
    shutil.copy(project / "net.pth", project / "elsewhere.pth")
    params["networks"]["teacher"]["init"]["url"] = "elsewhere.pth"
    write_params(project, params)
    assert "epoch 1/" not in run_moonshine("train", "teacher", *SEED, cwd=project).stderr
    assert sorted(path.name for path in project.glob("runs/toy/train/teacher/seed0/*")) == runs

    old = params["networks"]["teacher"]["init"]["sha256"]
    for init, change in (({"url": "x.pth", "sha256": "1" * 64}, f"{old} -> {'1' * 64}"), (None, f"{old} -> None")):
        params["networks"]["teacher"]["init"] = init
        write_params(project, params)
        status = json.loads(run_moonshine("status", "--json", cwd=project).stdout)
        reasons = {run["row"]: run["reason"] for run in status["runs"]}
        assert reasons["train/teacher"] == f"outdated (init: {change})"


def test_a_start_that_is_wrong_is_refused_in_one_line_before_training(project: Path) -> None:
    init, train, distil = published(project), ("train", "teacher", *SEED), ("distil", "at/student", *SEED)
    other = {"url": "net.pth", "sha256": "0" * 64}
    assert "params.yaml pins 0000" in refusal(project, params_with(teacher=other), *train, code=3)
    gone = {**init, "url": "gone.pth"}
    expected = "error: gone.pth: no such file; correct networks.teacher.init.url in params.yaml"
    assert refusal(project, params_with(teacher=gone), *train, code=3) == expected
    unfit = refusal(project, params_with(student=init), *distil, code=8)
    assert unfit.startswith("error: net.pth: does not fit the network: layer1.0.conv1.")
    assert unfit.endswith("is it of another architecture than resnet18, or of another conv, channels or stem?")
    nothing = params_with(student="teacher")
    nothing["networks"]["student"] = {"arch": "wrn-10-1", "points": ["group1", "group2", "group3", "relu"]}
    nothing["networks"]["student"]["init"] = "teacher"
    line = "networks.student: init: the teacher's network teacher has no weight of the same name and shape; leave it"
    assert line in refusal(project, nothing, "check", code=2)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"train": ["teacher", "student"]},
            "train: student has `init: teacher`; move it to train_from_teacher, which waits for the teacher",
        ),
        (
            {"train_from_teacher": ["teacher", "student"], "train": []},
            "train_from_teacher: teacher has no `init: teacher`; move it to train, or set networks.teacher.init",
        ),
        (
            {"train_from_teacher": ["student"], "teacher": "train/student/seed0"},
            "teacher: train/student/seed0 begins with the teacher's weights (train_from_teacher); name another model",
        ),
    ],
    ids=["in train", "without init", "the teacher itself"],
)
def test_lists_that_contradict_init_are_refused(change: dict[str, Any], line: str, tmp_path: Path) -> None:
    write_params(tmp_path, {**params_with(student="teacher"), **change})
    result = run_moonshine("check", "--keys", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert f"error: params.yaml: {line}\n" in result.stderr


@pytest.mark.parametrize(
    ("init", "line"),
    [
        ("techer", "networks.student.init: must be one of teacher, found 'techer'"),
        ({"url": "net.pth"}, "networks.student.init.sha256: missing key; "),
        ({"url": "net.pth", "sha256": "0" * 64, "shaa": 1}, "networks.student.init.shaa: unknown key"),
        (["net.pth"], "networks.student.init: must be a mapping of keys to values, found ['net.pth']"),
    ],
    ids=["another word", "no checksum", "an unknown key", "a list"],
)
def test_what_is_no_start_is_refused(init: Any, line: str, tmp_path: Path) -> None:
    write_params(tmp_path, params_with(student=init))
    result = run_moonshine("check", "--keys", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: params.yaml: {line}")


@pytest.mark.slow
def test_stopped_and_resumed_it_has_the_same_bytes_even_if_the_file_is_gone(project: Path, tmp_path: Path) -> None:
    params = params_with(teacher=published(project))
    params["machine"]["checkpoint_steps"] = 1
    write_params(project, params)
    undisturbed = shutil.copytree(project, tmp_path / "undisturbed")
    run_moonshine("train", "teacher", *SEED, cwd=undisturbed)
    process = start_until_paused(
        sys.executable, "-m", "moonshine", "train", "teacher", *SEED, cwd=project, phase="end of epoch"
    )
    process.kill()
    process.wait()
    (project / "net.pth").unlink()
    assert "resuming from epoch" in run_moonshine("train", "teacher", *SEED, cwd=project).stderr
    assert sha256(project / TEACHER) == sha256(undisturbed / TEACHER)


@pytest.mark.slow
def test_together_or_alone_they_begin_with_the_same_bytes(project: Path, tmp_path: Path) -> None:
    params = params_with(student="teacher")
    params["networks"]["same"] = {**params["networks"]["teacher"], "init": published(project)}
    params["distil"]["networks"] = ["student", "same"]
    write_params(project, params)
    alone = shutil.copytree(project, tmp_path / "alone")
    run_moonshine("distil", "--together", *SEED, cwd=project)
    for student in ("student", "same"):
        run_moonshine("distil", f"at/{student}", *SEED, cwd=project)
        run_moonshine("distil", f"at/{student}", *SEED, cwd=alone)
        path = f"models/toy/distil/at/{student}/seed0.safetensors"
        assert sha256(project / path) == sha256(alone / path)


@pytest.mark.slow
def test_several_processes_begin_with_the_same_bytes(project: Path) -> None:
    """With a learning rate that changes nothing, what the first one publishes is what both began with."""
    params = params_with(teacher=published(project))
    params["recipe"].update(epochs=1, lr_steps=[], lr=1e-12, momentum=0.0, processes=2)
    write_params(project, params)
    said = run_moonshine("train", "teacher", *SEED, cwd=project).stderr
    assert said.count("begins with") == 1
    weight = torch.load(project / "net.pth")["state_dict"]["module.layer1.0.conv1.weight"].float()
    assert torch.allclose(load_file(project / TEACHER)["layer1.0.conv1.weight"], weight, atol=1e-6)
