"""What an earlier version left is not lost: docs/upgrade.md, from the last version whose dvc.yaml lists modules."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.separate_project import ROOT, commit_all, environment, write_params
from tests.support.plans import (
    COMPARE,
    EVALUATE_DISTIL,
    EVALUATE_TRAIN,
    MAPS,
    REPORT,
    planned_by_dvc,
    planned_by_snakemake,
)
from tests.support.project import copy_project, run, run_moonshine, toy_params

VERSION = "8cdb619c2e4ba1c4f84e080443129aacc4a19fef"
KILLED_AFTER_TWO_CHECKPOINTS = """
import os, signal
from moonshine import cli
from moonshine.training import loop

saved, save = 0, loop.save_checkpoint

def save_and_die(*arguments):
    global saved
    save(*arguments)
    saved += 1
    if saved == 2:
        os.kill(os.getpid(), signal.SIGKILL)

loop.save_checkpoint = save_and_die
cli.run()
"""


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A project with the code of the earlier version, which saves after every step."""
    if run("git", "cat-file", "-e", VERSION, cwd=ROOT, check=False).returncode:
        pytest.skip("this clone is shallow: its history lacks the earlier version")
    project = tmp_path / "former"
    project.mkdir()
    archive = subprocess.run(["git", "archive", VERSION], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "x"], input=archive, cwd=project, check=True)
    params = toy_params()
    del params["train_from_teacher"]  # which it does not know
    write_params(project, {**params, "machine": {**params.get("machine", {}), "checkpoint_steps": 1}})
    (project / "dvc.lock").unlink()
    return project


def upgraded(former: Path, folder: Path) -> Path:
    """The same project with the code of today: what git does not track is still there."""
    project = copy_project(folder, toy_params())
    for name in ("data", "models", "runs", "results", "dvc.lock"):
        if (former / name).exists():
            run("cp", "-a", str(former / name), ".", cwd=project)
    return project


@pytest.mark.slow
def test_a_training_goes_on_from_its_checkpoint(former: Path, tmp_path: Path) -> None:
    own = environment(PYTHONPATH=str(former))
    subprocess.run([sys.executable, "-m", "moonshine", "prepare"], cwd=former, env=own, check=True, capture_output=True)
    words = [sys.executable, "-c", KILLED_AFTER_TWO_CHECKPOINTS, "train", "teacher", "--seed", "0"]
    assert subprocess.run(words, cwd=former, env=own, capture_output=True).returncode == -9
    project = upgraded(former, tmp_path / "project")
    (older,) = (path.name for path in (project / "runs/toy/train/teacher/seed0").iterdir() if path.is_dir())
    run_moonshine("prepare", cwd=project)
    said = run_moonshine("adopt", "train/teacher", "--seed", "0", cwd=project).stderr
    assert f"resumes from {older}, which differs in code: " in said
    assert "resuming from epoch 1, batch 2\n" in run_moonshine("train", "teacher", "--seed", "0", cwd=project).stderr
    record = json.loads((project / "models/toy/records/train/teacher/seed0.json").read_text())
    assert record["adopted"]["run"] == older


@pytest.mark.slow
def test_finished_stages_are_accepted(former: Path, tmp_path: Path) -> None:
    own = environment(PYTHONPATH=str(former))
    for words in (["git", "init", "--quiet"], ["dvc", "init", "--quiet", "--force"], ["dvc", "repro"]):
        subprocess.run(words, cwd=former, env=own, check=True, capture_output=True)
    project = upgraded(former, tmp_path / "project")
    run("cp", "-a", str(former / ".dvc/cache"), ".dvc/", cwd=project)
    models = sorted((project / "models").rglob("*.safetensors"))
    before = [path.read_bytes() for path in models]
    assert len(models) == 2
    changed = run("dvc", "status", cwd=project).stdout
    assert "modified:           moonshine/training" in changed
    stages = ("prepare", "train", "distil")
    refused = run_moonshine("accept", *stages, cwd=project, check=False)
    assert refused.returncode == 3
    assert "dvc.lock has no version of it; run the stages, or --unproven" in refused.stderr
    run_moonshine("accept", "--unproven", *stages, cwd=project)
    commit_all(project, "Accept the code of the new version")
    measuring = {EVALUATE_TRAIN, EVALUATE_DISTIL, COMPARE, MAPS, REPORT}
    assert planned_by_dvc(project) == planned_by_snakemake(project) == measuring
    run("dvc", "repro", cwd=project)
    assert "up to date" in run("dvc", "status", cwd=project).stdout
    run_moonshine("verify", cwd=project)
    assert [path.read_bytes() for path in models] == before
