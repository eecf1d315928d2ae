"""What jobs reserve on a cluster, as Snakemake plans it."""

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import ROOT, load_params_dict
from tests.support.project import copy_project, run, toy_params

Reserved = dict[str, set[tuple[int | None, int | None]]]


def reserved(params: dict[str, Any], folder: Path) -> Reserved:
    """Rule -> its jobs' GPUs and CPUs; None: not said, so the engine's default."""
    plan = run("snakemake", "--dry-run", "--forceall", "--nolock", cwd=copy_project(folder, params)).stdout
    found: Reserved = {}
    for rule, resources in re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", plan, re.MULTILINE):
        numbers = dict(re.findall(r"(\w+)=(\d+)", resources))
        gpus, cpus = (int(numbers[name]) if name in numbers else None for name in ("gpu", "cpus_per_task"))
        found.setdefault(rule.split("_")[0], set()).add((gpus, cpus))
    return found


def imagenet(**machine: Any) -> dict[str, Any]:
    params = load_params_dict(ROOT / "experiments/imagenet.yaml")
    params["machine"] = machine
    return params


def test_a_gpu_comes_with_cpus_that_decode_jpeg_images(tmp_path: Path) -> None:
    found = reserved(imagenet(device="cuda"), tmp_path / "project")
    assert found["train"] == found["distil"] == found["evaluate"] == found["attention"] == {(1, 12)}
    assert found["fetch"] == found["prepare"] == found["report"] == {(None, None)}


def test_every_gpu_of_a_training_comes_with_its_cpus(tmp_path: Path) -> None:
    params = imagenet(device="cuda", jobs={"distil": {"cpus": 6}, "prepare": {"cpus": 32}})
    params["recipe"] |= {"processes": 2, "threads": 16}
    found = reserved(params, tmp_path / "project")
    assert found["train"] == {(2, 32)}
    assert found["evaluate"] == {(1, 16)}
    assert found["distil"] == {(2, 6)}, "params.yaml wins"
    assert found["prepare"] == {(None, 32)}


@pytest.mark.parametrize(
    ("params", "device", "gpus"), [(imagenet(), "cpu", None), (toy_params(), "cuda", 1)], ids=["no GPU", "small images"]
)
def test_other_jobs_reserve_their_threads(
    params: dict[str, Any], device: str, gpus: int | None, tmp_path: Path
) -> None:
    found = reserved(params | {"machine": {"device": device}}, tmp_path / "project")
    assert found["train"] == found["distil"] == found["evaluate"] == {(gpus, None)}


@pytest.mark.slow
def test_cpus_of_a_cluster_keep_no_job_from_running_here(tmp_path: Path) -> None:
    params = toy_params()
    params["machine"]["jobs"] = {"prepare": {"cpus": 999}}
    project = copy_project(tmp_path / "project", params)
    run("snakemake", "--cores", "1", "--", "data/digits/manifest.json", cwd=project)
    assert (project / "data/digits/manifest.json").exists()
