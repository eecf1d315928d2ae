"""The experiment on a SLURM cluster, through the project's profile.

Needs a running cluster (sbatch, srun, scancel, scontrol) whose default partition takes jobs of 2 CPUs for a minute, and
no accounting database. `make test-slurm` runs this.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import ROOT, environment, write_params
from moonshine.runtime.files import sha256
from tests.slurm.cluster import OPTIONS
from tests.support.project import copy_project, is_stopped, pausing, run, run_moonshine, stages_in, toy_params

pytestmark = pytest.mark.slow

TEACHER = "models/toy/train/teacher/seed0.safetensors"
HERE = ("--profile", "workflow/profiles/slurm", *OPTIONS)


def hashes(project: Path) -> dict[str, str]:
    return {str(path.relative_to(project)): sha256(path) for path in project.glob("models/**/*.safetensors")}


class Job:
    """A job, which can be waited for as a process can."""

    def __init__(self, number: str):
        self.number = number

    def described(self) -> dict[str, str]:
        said = subprocess.run(["scontrol", "show", "job", self.number], capture_output=True, text=True, check=True)
        return dict(re.findall(r"(\w+)=(\S+)", said.stdout))

    def poll(self) -> int | None:
        codes = {"COMPLETED": 0} | dict.fromkeys(("CANCELLED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"), 1)
        return codes.get(self.described()["JobState"])

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.2)
        return code


def test_the_whole_experiment_runs_as_jobs_of_the_cluster(tmp_path: Path) -> None:
    params = toy_params()
    params["machine"] = {"device": "cpu", "jobs": {"train": {"minutes": 33, "memory_mb": 1500}}}
    project = copy_project(tmp_path / "project", params)
    output = run("snakemake", *HERE, cwd=project, PYTHONPATH=str(project)).stderr
    jobs = re.findall(r"submitted with SLURM jobid (\d+)", output)
    assert len(jobs) == len(set(jobs)) >= 6  # all but the target itself
    assert re.search(r"rule train:(.|\n)*?mem_mb=1500(.|\n)*?runtime=33", output)
    assert (project / "results/toy/README.md").exists()

    local = tmp_path / "local"
    local.mkdir()
    write_params(local, params)
    for command in ("prepare", "train teacher --seed 0", "distil at/student --seed 0"):
        run_moonshine(*command.split(), cwd=local)
    assert hashes(project) == hashes(local) != {}


def test_a_job_reserves_the_cpus_that_params_say(tmp_path: Path) -> None:
    params = toy_params()
    params["machine"] = {"jobs": {"prepare": {"cpus": 2}}}
    project = copy_project(tmp_path / "project", params)
    output = run("snakemake", *HERE, "--", "data/digits/manifest.json", cwd=project).stderr
    (number,) = re.findall(r"submitted with SLURM jobid (\d+)", output)
    described = Job(number).described()
    assert (described["NumCPUs"], described["Task"]) == ("2", "2")  # CPUs/Task


def params_of_training(**job: Any) -> dict[str, Any]:
    params = toy_params()
    params["recipe"].update(epochs=50, lr_steps=[25])
    params["machine"] = {"device": "cpu", "checkpoint_steps": 20, "jobs": {"train": job}}
    return params


@contextmanager
def started(project: Path, *options: str, pause_after: str) -> Iterator["subprocess.Popen[str]"]:
    """Snakemake, whose training stops itself after these checkpoints, and whose jobs end with the test."""
    command = ("snakemake", *HERE, *options, "--", TEACHER)
    variables = pausing(project, PAUSE_AFTER=pause_after)
    with (project.parent / "snakemake.log").open("w") as log:
        engine = subprocess.Popen(command, cwd=project, env=variables, stdout=log, stderr=log, text=True)
    try:
        yield engine
    finally:
        engine.kill()
        run("scancel", *submitted(project), cwd=project, check=False)


def submitted(project: Path) -> list[str]:
    """The numbers of the jobs that Snakemake submitted."""
    return re.findall(r"submitted with SLURM jobid (\d+)", (project.parent / "snakemake.log").read_text())


def wait_until(condition: Callable[[], Any], engine: subprocess.Popen[str] | Job) -> None:
    while not condition():
        assert engine.poll() is None, "it ended before its training was interrupted"
        time.sleep(0.2)


def stopped_training(project: Path, after: int, engine: subprocess.Popen[str] | Job) -> tuple[int, str]:
    """The training's process, stopped after the checkpoint of this number, and its job."""
    wait_until((project.parent / f"paused-after-{after}").exists, engine)
    wait_until(lambda: any(map(is_stopped, stages_in(project))), engine)
    (training,) = filter(is_stopped, stages_in(project))
    variables = Path(f"/proc/{training}/environ").read_text().split("\0")
    (job,) = (value.removeprefix("SLURM_JOB_ID=") for value in variables if value.startswith("SLURM_JOB_ID="))
    return training, job


def was_told_to_stop(training: int) -> bool:
    """Whether SIGTERM has reached the stopped process, or has ended it."""
    try:
        status = Path(f"/proc/{training}/status").read_text()
    except FileNotFoundError:
        return True
    pending = [int(mask, 16) for mask in re.findall(r"^(?:SigPnd|ShdPnd):\t(\w+)", status, re.MULTILINE)]
    return not is_stopped(training) or any(mask >> (signal.SIGTERM - 1) & 1 for mask in pending)


def go_on(training: int) -> None:
    with suppress(ProcessLookupError):  # SLURM may have woken it up itself
        os.kill(training, signal.SIGCONT)


def start_soon(requeued: str, project: Path) -> None:
    """It would wait for two minutes, which may be over already.

    In the same second as it was requeued, the node would still refuse it ("Job credential revoked").
    """
    run("scontrol", "update", f"JobId={requeued}", "StartTime=now+5seconds", cwd=project, check=False)


def require_end_as_unharmed(project: Path, engine: "subprocess.Popen[str]") -> None:
    """It ends well, having been resumed, with the bytes of a training that nobody stopped.

    Snakemake begins the stage's log again with each submission, the last of which may only have published what the one
    before had trained; so the jobs' own logs are read.
    """
    assert engine.wait() == 0, (project.parent / "snakemake.log").read_text()[-3000:]
    said = [path.read_text() for path in (project / ".snakemake/slurm_logs").rglob("*.log")]
    assert any("resuming from epoch" in text for text in said), said
    assert len(list(project.glob("runs/toy/train/teacher/seed0/*/final.json"))) == 1
    unharmed = project.parent / "unharmed"
    unharmed.mkdir()
    shutil.copy(project / "params.yaml", unharmed)
    run_moonshine("prepare", cwd=unharmed)
    run_moonshine("train", "teacher", "--seed", "0", cwd=unharmed)
    assert sha256(project / TEACHER) == sha256(unharmed / TEACHER)


def test_signals_and_requeues_cost_no_byte(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", params_of_training())
    with started(project, pause_after="20,120") as engine:
        training, job = stopped_training(project, 20, engine)
        run("scancel", f"--signal={signal.SIGTERM.name[3:]}", job, cwd=project)
        wait_until(lambda: was_told_to_stop(training), engine)
        go_on(training)

        training, requeued = stopped_training(project, 120, engine)
        assert requeued != job, "Snakemake submitted it again"
        run("scontrol", "requeue", requeued, cwd=project)
        wait_until(lambda: was_told_to_stop(training), engine)
        go_on(training)
        wait_until(lambda: "Restarts=1" in run("scontrol", "show", "job", requeued, cwd=project).stdout, engine)
        start_soon(requeued, project)
        require_end_as_unharmed(project, engine)


def test_a_time_limit_shorter_than_the_training_costs_no_byte(tmp_path: Path) -> None:
    """The training waits, stopped, until SLURM wakes it up at its time limit, to have it hear the signal to stop."""
    project = copy_project(tmp_path / "project", params_of_training(minutes=2))  # a start takes its time, too
    warn = "slurm_extra='--signal=TERM@15'"
    with started(project, "--default-resources", warn, pause_after="20") as engine:
        require_end_as_unharmed(project, engine)
    assert (tmp_path / "paused-after-20").exists()
    assert len(set(submitted(project))) >= 3, "the data's, and at least two of the training"


def recipe_for_nodes(tasks: int) -> str:
    """The script of docs/slurm.md with a task of one process, on this node, for each of its nodes."""
    (script,) = re.findall(r"^    #!/bin/bash\n(?:    .*\n)+", (ROOT / "docs/slurm.md").read_text(), re.MULTILINE)
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    for line, of_one_node in (
        ("--nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=96", f"--ntasks={tasks} --overcommit"),
        ("--time=24:00:00", "--time=10"),
        ("--cpus-per-task=$SLURM_CPUS_PER_TASK", "--overcommit"),
        ("--nproc-per-node 8", "--nproc-per-node 1"),
        (":29500", f":{port}"),
        ("train resnet34", "train teacher"),
    ):
        assert script.count(line) == 1, line
        script = script.replace(line, of_one_node)
    return textwrap.dedent(script)


@contextmanager
def job_of_docs(folder: Path, tasks: int, variables: dict[str, str]) -> Iterator[Job]:
    """The job of this script, which ends with the test."""
    (folder / "train.sbatch").write_text(recipe_for_nodes(tasks))
    command = ("sbatch", "--parsable", "--output", "job.log", "train.sbatch")
    submitted = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=True)
    job = Job(submitted.stdout.strip())
    try:
        yield job
    finally:
        run("scancel", job.number, cwd=folder, check=False)


def trained_on_one_machine(params: dict[str, Any], folder: Path) -> Path:
    """The same training in a folder of its own, with the data, and one in which only the data are prepared."""
    alone = folder / "alone"
    alone.mkdir()
    write_params(alone, params)
    run_moonshine("prepare", cwd=alone)
    shutil.copytree(alone, folder / "project")
    run_moonshine("train", "teacher", "--seed", "0", cwd=alone)
    return alone


def test_processes_meet_across_tasks_and_train_as_on_one_machine(tmp_path: Path) -> None:
    """As across nodes, with the three tasks of a job on this one."""
    params = toy_params()
    params["recipe"]["processes"] = 3
    alone, project = trained_on_one_machine(params, tmp_path), tmp_path / "project"
    with job_of_docs(project, 3, environment()) as job:
        assert job.wait() == 0, (project / "job.log").read_text()
    assert sha256(project / TEACHER) == sha256(alone / TEACHER)


def test_a_job_of_several_tasks_that_is_stopped_submits_itself_again(tmp_path: Path) -> None:
    """By the signal that SLURM sends before the time limit."""
    params = params_of_training()
    params["recipe"].update(processes=2, epochs=10, lr_steps=[5])
    alone, project = trained_on_one_machine(params, tmp_path), tmp_path / "project"
    with job_of_docs(project, 2, pausing(project, PAUSE_AFTER="20")) as job:
        training, _ = stopped_training(project, 20, job)
        run("scancel", f"--signal={signal.SIGTERM.name[3:]}", job.number, cwd=project)
        wait_until(lambda: was_told_to_stop(training), job)
        go_on(training)
        wait_until(lambda: job.described()["Restarts"] == "1", job)
        start_soon(job.number, project)
        assert job.wait() == 0, (project / "job.log").read_text()
    assert "resuming from epoch" in (project / "job.log").read_text()
    assert sha256(project / TEACHER) == sha256(alone / TEACHER)
