"""Networks that begin with other weights than random ones, under both engines at toy size."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.separate_project import commit_all, write_params
from moonshine.models.architecture import architecture_of
from moonshine.models.networks import initialise
from moonshine.params.schema import Network
from moonshine.runtime.files import sha256
from tests.support.plans import planned_by_dvc, planned_by_snakemake
from tests.support.project import copy_project, files_below, run, run_moonshine, toy_params


def starting_params() -> dict[str, Any]:
    """A teacher from a file, a student from the teacher, and the student's control without distillation."""
    params = toy_params()
    params["networks"]["student"]["init"] = "teacher"
    params["train_from_teacher"] = ["student"]
    params["recipe"].update(epochs=1, lr_steps=[])
    return params


def write_published(path: Path, seed: int) -> dict[str, str]:
    """A network of 7 classes as somebody else may have saved it."""
    network = initialise(architecture_of(Network(**toy_params()["networks"]["teacher"]), 7, 1), seed)
    torch.save({"state_dict": torch.nn.DataParallel(network).state_dict(), "epoch": 3}, path)
    return {"url": path.name, "sha256": sha256(path)}


@pytest.mark.slow
def test_both_engines_begin_where_params_say_and_notice_another_file(tmp_path: Path) -> None:
    params = starting_params()
    projects = {name: copy_project(tmp_path / name, params) for name in ("snakemake", "dvc")}
    for name, project in projects.items():
        params["networks"]["teacher"]["init"] = write_published(project / "net.pth", seed=1)
        write_params(project, params)
        commit_all(project)
        run(*{"snakemake": ("snakemake", "--cores", "1"), "dvc": ("dvc", "repro")}[name], cwd=project)
    project = projects["snakemake"]
    models = files_below(project / "models", ".safetensors")
    assert len(models) == 3
    assert models == files_below(projects["dvc"] / "models", ".safetensors")
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()
    run_moonshine("verify", cwd=project)
    said = run_moonshine("lineage", "train/student", cwd=project).stdout
    assert re.search(r"ok  init teacher: as it is now", said)
    assert re.search(r"models/toy/train/teacher/seed0\.safetensors: sha256", said), "on to the teacher"
    assert re.search(r"ok  init [0-9a-f]{16}: as it is now", said), "on to the teacher's file"

    params["networks"]["teacher"]["init"] = write_published(project / "net.pth", seed=2)
    write_params(project, params)
    run_moonshine("sync", cwd=project)
    stale = planned_by_dvc(project)
    assert stale == planned_by_snakemake(project)
    assert {"train@toy-teacher-0", "train_from_teacher@toy-student-0", "distil@toy-at-student-0"} <= stale
    assert not stale & {"prepare@digits"}
    reasons = {each["row"]: each["reason"] for each in json.loads(status(project))["runs"]}
    assert reasons["train/teacher"].startswith("outdated (init: ")
    assert reasons["train/student"].startswith("its teacher train/teacher/seed0 is outdated (init: ")


def status(project: Path) -> str:
    return run_moonshine("status", "--json", cwd=project).stdout
