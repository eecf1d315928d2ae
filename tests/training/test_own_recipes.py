"""Rows with recipes of their own, trained by the command line on one prepared data set."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.separate_project import write_params
from moonshine.models.model_file import load_model
from moonshine.runtime.files import sha256
from tests.support.own_recipes import own_recipes
from tests.support.project import run_moonshine, start_until_paused

DISTIL = ("distil", "--together", "--seed", "0")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a teacher."""
    folder = tmp_path_factory.mktemp("own")
    write_params(folder, own_recipes())
    run_moonshine("prepare", cwd=folder)
    run_moonshine("train", "teacher", "--seed", "0", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def together(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The students trained in one command, and what it said."""
    folder = shutil.copytree(project, tmp_path_factory.mktemp("together") / "project")
    return folder, run_moonshine(*DISTIL, cwd=folder).stderr


def finished(folder: Path) -> dict[str, str]:
    """Row -> sha256 of what its run left in runs/."""
    runs = (folder / "runs/toy").glob("distil/*/*/seed0/*/final.safetensors")
    return {str(Path(*path.parts[-5:-3])): sha256(path) for path in runs}


def curve(folder: Path, row: str) -> list[dict[str, str]]:
    with (folder / "results/toy/curves" / row / "seed0.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_teacher_has_its_own_epochs_and_learning_rate(project: Path) -> None:
    assert [(line["epoch"], line["lr"]) for line in curve(project, "train/teacher")] == [("1", "0.02")]


def test_the_description_of_a_model_has_no_recipe(project: Path) -> None:
    _, description = load_model(project / "models/toy/train/teacher/seed0.safetensors")
    assert "recipe" not in description["architecture"]
    record = json.loads((project / "models/toy/records/train/teacher/seed0.json").read_text())
    assert record["identity"]["recipe"]["epochs"] == 1
    assert "recipe" not in record["identity"]["network"]


def test_students_are_trained_together_as_far_as_they_share_batches(together: tuple[Path, str]) -> None:
    """The memory of students is measured where there are several."""
    folder, said = together
    assert finished(folder).keys() == {"at/student", "at/slow", "kd/small"}
    assert said.count("distil/at/student: seed 0, 300 images, global batch size 128, 2 epochs, lr 0.05") == 1
    assert said.count("distil/at/slow: seed 0, 300 images, global batch size 128, 2 epochs, lr 0.01") == 1
    assert said.count("distil/kd/small: seed 0, 150 images, global batch size 50, 2 epochs, lr 0.05") == 1
    assert [row for row in ("at/student", "at/slow", "kd/small") if f"distil/{row}: 0." in said] == [
        "at/student",
        "at/slow",
    ]


def test_each_student_has_the_bytes_that_it_has_alone(
    project: Path, together: tuple[Path, str], tmp_path: Path
) -> None:
    alone = shutil.copytree(project, tmp_path / "alone")
    for student in ("at/slow", "kd/small"):
        run_moonshine("distil", student, "--seed", "0", cwd=alone)
    ours = finished(together[0])
    assert finished(alone) == {student: ours[student] for student in ("at/slow", "kd/small")}


@pytest.mark.slow
def test_a_killed_training_on_some_of_the_images_resumes_to_the_same_bytes(
    project: Path, together: tuple[Path, str], tmp_path: Path
) -> None:
    killed = shutil.copytree(project, tmp_path / "killed")
    write_params(killed, own_recipes() | {"machine": {"checkpoint_steps": 1}})
    command = (sys.executable, "-m", "moonshine", "distil", "kd/small", "--seed", "0")
    process = start_until_paused(*command, cwd=killed, phase="end of epoch")
    process.kill()
    process.wait()
    assert not finished(killed)
    again = run_moonshine("distil", "kd/small", "--seed", "0", cwd=killed)
    assert "resuming from epoch" in again.stderr
    assert finished(killed) == {"kd/small": finished(together[0])["kd/small"]}


def test_status_counts_the_epochs_of_each_row(together: tuple[Path, str]) -> None:
    runs = {run["row"]: run for run in json.loads(run_moonshine("status", "--json", cwd=together[0]).stdout)["runs"]}
    assert [(runs[row]["state"], runs[row]["epoch"], runs[row]["epochs"]) for row in runs] == [
        ("done", 1, 1),
        ("finished", 2, 2),
        ("finished", 2, 2),
        ("finished", 2, 2),
    ]


def test_another_own_recipe_makes_the_rows_outdated_that_have_it(project: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(project, tmp_path / "changed")
    params = own_recipes()
    params["networks"]["slow"]["recipe"]["lr"] = 0.5
    write_params(changed, params)
    assert "outdated" not in run_moonshine("status", cwd=changed).stdout
    params["networks"]["teacher"]["recipe"]["lr"] = 0.5
    write_params(changed, params)
    assert "train/teacher/seed0: outdated (recipe.lr: 0.02 -> 0.5)" in run_moonshine("status", cwd=changed).stdout
    del params["networks"]["teacher"]["recipe"]
    write_params(changed, params)
    result = run_moonshine("distil", "kd/small", "--seed", "0", cwd=changed, check=False)
    assert result.returncode == 3
    assert "outdated (recipe.epochs: 1 -> 2; recipe.lr: 0.02 -> 0.05; recipe.lr_steps: [] -> [1])" in result.stderr


@pytest.mark.parametrize("command", [("train", "teacher", "--seed", "0"), DISTIL, ("check",)])
def test_more_images_than_there_are_are_refused_before_training(
    command: tuple[str, ...], project: Path, tmp_path: Path
) -> None:
    few = shutil.copytree(project, tmp_path / "few")
    params = own_recipes()
    params["methods"]["at"]["recipe"]["images"] = 1198
    write_params(few, params)
    result = run_moonshine(*command, cwd=few, check=False)
    assert result.returncode == 2
    line = "methods.at.recipe.images: 1,198, but data/digits has 1,197 training images\n"
    assert result.stderr.endswith(line)
    assert not list(few.glob("runs/toy/distil/**/step-*"))


def test_a_last_batch_of_one_image_is_refused_before_any_student_is_trained(project: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(project, tmp_path / "odd")
    params = own_recipes()
    params["networks"]["small"] = {"arch": "resnet18", "recipe": {"batch_size": 149, "images": 150}}
    write_params(odd, params)
    result = run_moonshine(*DISTIL, cwd=odd, check=False)
    assert result.returncode == 2
    line = "networks.small.recipe.batch_size: 149 leaves a last batch of 1 of 150 images, too few for the batch norm"
    assert line in result.stderr
    assert not finished(odd)
