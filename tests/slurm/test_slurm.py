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
from support import copy_project, environment, moonshine, run, toy_params, write_params

HAS_CLUSTER = (
    bool(shutil.which("sbatch")) and subprocess.run(["sinfo", "--noheader"], capture_output=True).stdout != b""
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HAS_CLUSTER, reason="no SLURM cluster answers sinfo here")]

TEACHER = "models/toy/train/teacher/seed0.safetensors"
# what a cluster without accounting database needs, and impatience
HERE = (
    "--profile", "workflow/profiles/slurm", "--slurm-status-command", "squeue", "--slurm-no-account",
    "--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "3",
)  # fmt: skip


def hashes(project: Path) -> dict[str, str]:
    return {str(path.relative_to(project)): sha256(path) for path in project.glob("models/**/*.safetensors")}


def test_the_whole_experiment_runs_as_jobs_of_the_cluster(tmp_path: Path) -> None:
    params = toy_params()
    params["machine"] = {"device": "cpu", "jobs": {"train": {"minutes": 33, "memory_mb": 1500}}}
    project = copy_project(tmp_path / "project", params)
    output = run("snakemake", *HERE, cwd=project, PYTHONPATH=str(project)).stdout
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


def long_params() -> dict[str, Any]:
    """A training of more than the minute that the cluster grants, on any machine of today."""
    params = toy_params()
    params["recipe"].update(epochs=200, lr_steps=[100])
    params["machine"] = {"device": "cpu", "checkpoint_steps": 20, "jobs": {"train": {"minutes": 1}}}
    return params


def test_signals_requeues_and_time_limits_cost_no_byte(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", long_params())
    unharmed = shutil.copytree(project, tmp_path / "unharmed")
    extra = ("--default-resources", "slurm_extra='--signal=TERM@15'")
    log = tmp_path / "snakemake.log"
    with log.open("w") as file:
        engine = subprocess.Popen(
            ("snakemake", *HERE, *extra, "--", TEACHER),
            cwd=project, env=environment(PYTHONPATH=str(project)), stdout=file, stderr=file, text=True,
        )  # fmt: skip
        try:
            step = wait_for_checkpoint(project, 0, engine)
            run("scancel", f"--signal={signal.SIGTERM.name[3:]}", job_of_training(), cwd=project)
            step = wait_for_checkpoint(project, step + 100, engine)
            requeued = job_of_training()
            run("scontrol", "requeue", requeued, cwd=project)
            while "PENDING" not in run("scontrol", "show", "job", requeued, cwd=project).stdout:
                time.sleep(0.5)
            run("scontrol", "update", f"JobId={requeued}", "StartTime=now", cwd=project)  # else it waits 2 minutes
            assert engine.wait(timeout=1200) == 0, log.read_text()[-3000:]
        finally:
            engine.kill()
    said = (project / "logs/toy/train/teacher/seed0.log").read_text()
    assert said.count("stopped by SIGTERM: a checkpoint is saved") >= 3  # by hand, requeued, at the time limit
    assert said.count("going on from epoch") >= 3
    assert len(set(re.findall(r"submitted with SLURM jobid (\d+)", log.read_text()))) >= 4
    run("snakemake", "--cores", "1", "--", TEACHER, cwd=unharmed)
    assert sha256(project / TEACHER) == sha256(unharmed / TEACHER)


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
