"""`moonshine verify` of a whole project: files, folders of files, and what others trained."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from benchmarks.separate_project import commit_all
from tests.support.project import copy_finished, run, run_moonshine


@pytest.fixture
def project(by_snakemake: Path, tmp_path: Path) -> Path:
    """The finished experiment, its results in git."""
    project = copy_finished(by_snakemake, tmp_path / "project")
    commit_all(project, "results")
    return project


def test_a_finished_project_is_sound(project: Path) -> None:
    assert "outputs are what dvc.lock says" in run_moonshine("verify", cwd=project).stderr


def test_a_lock_that_says_nothing_proves_nothing(project: Path) -> None:
    lock = project / "dvc.lock"
    lock.unlink()
    result = run_moonshine("verify", cwd=project, check=False)
    assert result.returncode == 3
    repair = "git checkout HEAD -- dvc.lock"
    assert result.stderr.startswith(f"error: dvc.lock: missing; repair: {repair}, moonshine record if ")
    lock.write_text("schema: '2.0'\nstages: {}\n")
    result = run_moonshine("verify", cwd=project, check=False)
    assert (result.returncode, "dvc.lock: has nothing of toy; repair: " in result.stderr) == (3, True)
    run(*repair.split(), cwd=project)
    run_moonshine("verify", cwd=project)


@pytest.mark.parametrize("damage", ["altered", *(pytest.param(d, marks=pytest.mark.slow) for d in ("lost", "added"))])
def test_damage_within_a_folder_is_found_and_repaired(damage: str, project: Path) -> None:
    figure = project / "results/toy/figures/training-curves.svg"
    if damage == "altered":
        figure.write_text(figure.read_text() + "\n")
    elif damage == "lost":
        figure.unlink()
    else:
        shutil.copy(figure, figure.with_name("another.svg"))
    result = run_moonshine("verify", cwd=project, check=False)
    assert result.returncode == 3
    repair = "git checkout HEAD -- results/toy/figures"
    assert result.stderr == (
        f"error: results/toy/figures: its md5 is not that of report@toy in dvc.lock; repair: {repair}\n"
    )
    if damage != "added":
        run(*repair.split(), cwd=project)
        run_moonshine("verify", cwd=project)


@pytest.mark.slow
def test_the_index_of_experiments_is_held_against_their_headlines(project: Path) -> None:
    index = project / "results/README.md"
    before = index.read_bytes()
    for damaged, problem in (
        (before.replace(b".", b",", 1), "not what the experiments' headlines say; repair: moonshine report"),
        (b"\xff", "cannot be read ("),
        (None, "not what the experiments' headlines say; repair: moonshine report"),
    ):
        index.unlink()
        if damaged is not None:
            index.write_bytes(damaged)
        result = run_moonshine("verify", cwd=project, check=False)
        assert result.returncode == 3
        assert result.stderr.startswith(f"error: results/README.md: {problem}")
    run_moonshine("report", cwd=project)
    assert index.read_bytes() == before
    run_moonshine("verify", cwd=project)


UNRECORDED = {
    "prepare@digits": ("data/digits/val.arrow", "its sha256 is not the manifest's; repair: moonshine prepare"),
    "train@toy-teacher-0": (
        "models/toy/train/teacher/seed0.safetensors",
        "its sha256 is not that of models/toy/records/train/teacher/seed0.json; repair: delete it and run its stage",
    ),
}


@pytest.mark.parametrize("stage", UNRECORDED)
def test_what_dvc_lock_does_not_have_is_held_against_the_file_beside_it(stage: str, project: Path) -> None:
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    del lock["stages"][stage]
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    name, problem = UNRECORDED[stage]
    (project / name).write_bytes((project / name).read_bytes() + b" ")
    result = run_moonshine("verify", cwd=project, check=False)
    assert result.returncode == 3
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {name}: ")
    assert line.endswith(problem)


def test_a_published_network_is_not_held_against_the_file_it_was_made_from(project: Path) -> None:
    model, record = project / "models/toy/fetch/big.safetensors", project / "models/toy/records/fetch/big.json"
    for path in (model, record):
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(project / "models/toy/train/teacher/seed0.safetensors", model)
    record.write_text(json.dumps({"row": "fetch/big", "sha256": 64 * "0"}))
    run_moonshine("verify", cwd=project)
