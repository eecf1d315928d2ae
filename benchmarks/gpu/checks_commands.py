"""Checks through the command line, by processes of their own: stages, stops, claims, several processes, containers."""

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.experiment import MODEL, SECONDS, STUDENT, TRAIN, Experiment, finish, last_line
from benchmarks.gpu.machine import Context
from benchmarks.gpu.worker import start_worker
from benchmarks.separate_project import ROOT, copy_this_project, environment, load_params_dict
from moonshine.containers.launcher import IMAGE, SIF

PROCESSES = 3
"""With two, the order in which their gradients are summed could not matter: a + b = b + a."""


def commands(context: Context) -> None:
    """Stages on the device; killed, stopped and resumed = undisturbed; together = alone; claims; exit codes."""
    with tempfile.TemporaryDirectory() as root:
        undisturbed = Experiment(context, Path(root) / "undisturbed")
        _all_stages(context, undisturbed)
        disturbed = Experiment(context, Path(root) / "disturbed", checkpoint_steps=1)
        shutil.copytree(undisturbed.folder / "data", disturbed.folder / "data")
        _stops_and_resumes(context, disturbed, undisturbed)
        _together(context, disturbed, undisturbed)
        of_jobs = context, undisturbed, Path(root)
        _two_jobs_and_one_gpu(*of_jobs, "two jobs and one GPU, one waits", 1)
        _two_jobs_and_one_gpu(*of_jobs, "two jobs share a GPU, none waits", 0, trainings_per_gpu=2)
        shutil.rmtree(disturbed.folder / "models")
        shutil.rmtree(disturbed.folder / "runs")
        wanting = Experiment(context, disturbed.folder, device="cuda")
        code, errors = wanting.run(*TRAIN, CUDA_VISIBLE_DEVICES="")
        context.report.require(code == 5, "device: cuda without a visible GPU", f"exit {code}: {last_line(errors)}")


def _all_stages(context: Context, experiment: Experiment) -> None:
    stages = [
        ("prepare",),
        TRAIN,
        ("distil", "at/student", "--seed", "0"),
        ("evaluate", "distil/at/student"),
        ("attention-maps",),
    ]
    for stage in stages:
        begin = time.monotonic()
        code, errors = experiment.run(*stage)
        is_done = code == 0 and "Traceback" not in errors
        text = f"exit {code} after {time.monotonic() - begin:.1f} s"
        context.report.require(is_done, f"moonshine {' '.join(stage)}", text if is_done else f"{text}: {errors[-400:]}")


def _stops_and_resumes(context: Context, experiment: Experiment, undisturbed: Experiment) -> None:
    for number, expected in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM)):
        code, errors = experiment.stop(number)
        context.report.require(code == expected, f"training ends by {number.name}", f"exit {code}: {last_line(errors)}")
    _require_resumed(context, experiment, undisturbed, "killed, stopped and resumed = undisturbed")


def _require_resumed(context: Context, experiment: Experiment, undisturbed: Experiment, name: str) -> None:
    code, errors = experiment.run(*TRAIN)
    found, expected = experiment.hash(MODEL), undisturbed.hash(MODEL)
    is_same = code == 0 and found == expected is not None and "resuming from" in errors
    context.report.require(is_same, name, f"exit {code}, {found}, undisturbed {expected}")


def _together(context: Context, experiment: Experiment, alone: Experiment) -> None:
    code, errors = experiment.run("distil", "--together", "--seed", "0")
    publishing, _ = experiment.run("distil", "at/student", "--seed", "0")
    found, expected = experiment.hash(STUDENT), alone.hash(STUDENT)
    needs = "; ".join(line for line in errors.splitlines() if "more in its step" in line)
    is_same = (code, publishing) == (0, 0) and found == expected is not None
    context.report.require(is_same, "distil --together = alone", f"{found}, alone {expected}; {needs}")


def _two_jobs_and_one_gpu(
    context: Context, trained: Experiment, root: Path, name: str, waiting: int, **machine: Any
) -> None:
    """Two trainings started together, of which so many must wait, and both have the bytes of one alone."""
    if not context.on_gpu:
        context.report.leave_out(name, "needs a GPU")
        return
    jobs = []
    for number in (1, 2):
        experiment = Experiment(context, root / f"{name}, {number}", **machine)
        shutil.copytree(trained.folder / "data", experiment.folder / "data")
        jobs.append((experiment, experiment.start(*TRAIN)))
    ended = [finish(process) for _, process in jobs]
    waited = sum("waiting for other jobs" in errors for _, errors in ended)
    is_same = all(experiment.hash(MODEL) == trained.hash(MODEL) for experiment, _ in jobs)
    text = f"exit {[code for code, _ in ended]}, {waited} waited"
    context.report.require(is_same and waited == waiting and all(code == 0 for code, _ in ended), name, text)


def processes(context: Context) -> None:
    """Several processes: all that they exchange, by a group of one; and three that are stopped and resume."""
    backend = "NCCL and gloo" if context.on_gpu else "gloo"
    found = start_worker(context, "one_of_several").result()
    is_same = found["alone"] == found["in_group"]
    context.report.require(is_same, f"a group of one process over {backend} = none", f"{found}")
    name = f"{PROCESSES} processes over {backend}, stopped and resumed = undisturbed"
    if context.on_gpu and torch.cuda.device_count() < PROCESSES:
        context.report.leave_out(name, f"{torch.cuda.device_count()} GPUs are visible")
        return
    recipe = {"processes": PROCESSES, "batch_size": 120, "epochs": 3}
    with tempfile.TemporaryDirectory() as root:
        undisturbed = Experiment(context, Path(root) / "undisturbed", recipe)
        stopped = Experiment(context, Path(root) / "stopped", recipe, checkpoint_steps=1)
        code, errors = undisturbed.run("prepare")
        shutil.copytree(undisturbed.folder / "data", stopped.folder / "data")
        code, errors = undisturbed.run(*TRAIN)
        context.report.require(code == 0, f"{PROCESSES} processes over {backend}", f"exit {code}: {last_line(errors)}")
        code, errors = stopped.stop(signal.SIGTERM)
        is_stopped = code == 128 + signal.SIGTERM
        context.report.require(is_stopped, f"{PROCESSES} processes stop", f"exit {code}: {last_line(errors)}")
        _require_resumed(context, stopped, undisturbed, name)


def containers(context: Context) -> None:
    """The image of `make image` and `make sif` trains on the device, to the bytes of this machine's own Python."""
    has_docker = shutil.which("docker") and _succeeds("docker", "image", "inspect", IMAGE)
    has_apptainer = (shutil.which("apptainer") or shutil.which("singularity")) and (ROOT / SIF).is_file()
    available = {"docker": has_docker, "apptainer": has_apptainer}
    for engine in (engine for engine, is_there in available.items() if not is_there):
        context.report.leave_out(f"in a container by {engine}", "not installed, or no image (make image, make sif)")
    if not any(available.values()):
        return
    with tempfile.TemporaryDirectory() as root:
        host = Experiment(context, Path(root) / "host")
        host.run("prepare")
        host.run(*TRAIN)
        for engine in (engine for engine, is_there in available.items() if is_there):
            _train_in_container(context, engine, Path(root) / engine, host)


def _train_in_container(context: Context, engine: str, folder: Path, host: Experiment) -> None:
    copy_this_project(folder, load_params_dict(host.folder / "params.yaml"))
    if (ROOT / SIF).is_file():
        (folder / SIF).symlink_to((ROOT / SIF).resolve())
    shutil.copytree(host.folder / "data", folder / "data")
    result = subprocess.run(
        ["containers/run", "moonshine", *TRAIN],
        cwd=folder,
        env=environment(MOONSHINE_CONTAINER=engine),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    model, expected = folder / MODEL, host.hash(MODEL)
    is_same = result.returncode == 0 and model.is_file() and Experiment(context, folder).hash(MODEL) == expected
    text = f"exit {result.returncode}: {last_line(result.stderr)}"
    context.report.require(is_same, f"in a container by {engine} = on this machine", text)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
