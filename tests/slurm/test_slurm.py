"""The experiment on a SLURM cluster, through the project's profile.

Needs a running cluster (sbatch, srun, scancel, scontrol) whose default partition takes jobs of 2 CPUs for a minute, and
no accounting database. `make test-slurm` runs this.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from moonshine.files import sha256
from support import copy_project, environment, held, is_stopped, moonshine, run, toy_params, write_params

HAS_CLUSTER = (
    bool(shutil.which("sbatch")) and subprocess.run(["sinfo", "--noheader"], capture_output=True).stdout != b""
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HAS_CLUSTER, reason="no SLURM cluster answers sinfo here")]

TEACHER = "models/toy/train/teacher/seed0.safetensors"
# what a cluster without accounting database needs, and impatience
HERE = (
    "--profile", "workflow/profiles/slurm", "--slurm-status-command", "squeue",
    "--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "3",
)  # fmt: skip


def hashes(project: Path) -> dict[str, str]:
    return {str(path.relative_to(project)): sha256(path) for path in project.glob("models/**/*.safetensors")}


def test_the_whole_experiment_runs_as_jobs_of_the_cluster(tmp_path: Path) -> None:
    params = toy_params()
    params["machine"] = {"device": "cpu", "jobs": {"train": {"minutes": 33, "memory_mb": 1500}}}
    project = copy_project(tmp_path / "project", params)
    output = run("snakemake", *HERE, cwd=project, PYTHONPATH=str(project)).stderr
    submitted = re.findall(r"submitted with SLURM jobid (\d+)", output)
    assert len(submitted) == len(set(submitted)) >= 6  # all but the target itself
    assert re.search(r"rule train:(.|\n)*?mem_mb=1500(.|\n)*?runtime=33", output)
    assert (project / "results/toy/README.md").exists()

    local = tmp_path / "local"
    local.mkdir()
    write_params(local, params)
    for command in ("prepare", "train teacher --seed 0", "distil at/student --seed 0"):
        moonshine(*command.split(), cwd=local)
    assert hashes(project) == hashes(local) != {}


def last_checkpoint(project: Path) -> int:
    records = project.glob("runs/toy/train/teacher/seed0/*/step-*.json")
    return max((int(path.stem.removeprefix("step-")) for path in records), default=0)


def wait_for_checkpoint(project: Path, beyond: int, engine: subprocess.Popen[str]) -> int:
    while (step := last_checkpoint(project)) <= beyond:
        assert engine.poll() is None, "it ended before its training was interrupted"
        time.sleep(0.2)
    return step


def job_of_training() -> str:
    """The number of the job that runs; tests run one at a time."""
    jobs = run("squeue", "--noheader", "--states", "running", "--format", "%i", cwd=Path.cwd()).stdout.split()
    assert len(jobs) == 1
    return jobs[0]


def params_of_training(epochs: int, **job: Any) -> dict[str, Any]:
    params = toy_params()
    params["recipe"].update(epochs=epochs, lr_steps=[epochs // 2])
    params["machine"] = {"device": "cpu", "checkpoint_steps": 20, "jobs": {"train": job}}
    return params


def start(project: Path, *options: str) -> subprocess.Popen[str]:
    with (project.parent / "snakemake.log").open("w") as log:
        return subprocess.Popen(
            ("snakemake", *HERE, *options, "--", TEACHER),
            cwd=project, env=environment(PYTHONPATH=str(project)), stdout=log, stderr=log, text=True,
        )  # fmt: skip


def require_end_as_unharmed(project: Path, engine: subprocess.Popen[str]) -> None:
    """It ends well, having been resumed, with the bytes of a training that nobody stopped."""
    assert engine.wait() == 0, (project.parent / "snakemake.log").read_text()[-3000:]
    said = (project / "logs/toy/train/teacher/seed0.log").read_text()
    assert "going on from epoch" in said  # Snakemake begins the log anew with each submission
    unharmed = project.parent / "unharmed"
    unharmed.mkdir()
    shutil.copy(project / "params.yaml", unharmed)
    moonshine("prepare", cwd=unharmed)
    moonshine("train", "teacher", "--seed", "0", cwd=unharmed)
    assert sha256(project / TEACHER) == sha256(unharmed / TEACHER)


def test_signals_and_requeues_cost_no_byte(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", params_of_training(epochs=50))
    engine = start(project)
    try:
        step = wait_for_checkpoint(project, 0, engine)
        with held(project):
            run("scancel", f"--signal={signal.SIGTERM.name[3:]}", job_of_training(), cwd=project)
        wait_for_checkpoint(project, step + 100, engine)
        with held(project):
            requeued = job_of_training()
            run("scontrol", "requeue", requeued, cwd=project)
        while "PENDING" not in run("scontrol", "show", "job", requeued, cwd=project).stdout:
            time.sleep(0.5)
        run("scontrol", "update", f"JobId={requeued}", "StartTime=now", cwd=project)  # else it waits two minutes
        require_end_as_unharmed(project, engine)
    finally:
        engine.kill()
    jobs = re.findall(r"submitted with SLURM jobid (\d+)", (tmp_path / "snakemake.log").read_text())
    assert len(set(jobs)) == 3  # the data's, the training's, and the training's after the signal


def test_a_time_limit_shorter_than_the_training_costs_no_byte(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", params_of_training(epochs=50, minutes=1))
    engine = start(project, "--default-resources", "slurm_extra='--signal=TERM@15'")
    try:
        wait_for_checkpoint(project, 0, engine)
        with held(project) as (training,):
            while is_stopped(training):  # until SLURM wakes it up, to have it hear the signal
                time.sleep(0.1)
        require_end_as_unharmed(project, engine)
    finally:
        engine.kill()


def test_torchrun_meets_across_tasks(tmp_path: Path) -> None:
    """As across nodes, with the two tasks of a job on this one."""
    params = toy_params()
    params["recipe"]["processes"] = 2
    write_params(tmp_path, params)
    moonshine("prepare", cwd=tmp_path)
    alone = shutil.copytree(tmp_path, tmp_path / "alone")
    moonshine("train", "teacher", "--seed", "0", cwd=alone)
    port = 20000 + os.getpid() % 20000
    command = (
        "srun", "--ntasks", "2", "torchrun", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", f"localhost:{port}", "-m", "moonshine", "train", "teacher", "--seed", "0",
    )  # fmt: skip
    run(*command, cwd=tmp_path)
    assert sha256(tmp_path / TEACHER) == sha256(alone / TEACHER)
