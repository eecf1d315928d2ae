"""Jobs on one machine take different GPUs; here with eight pretended ones."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ROOT, environment, moonshine, toy_params, write_params

GPUS = [f"GPU-{number}" for number in range(8)]
# what a job does, without torch: claim, tell, and compute until somebody stops it
JOB = """
import signal, sys
from pathlib import Path
from moonshine import gpu_claims
gpu_claims.FOLDER, gpu_claims.SECONDS_BETWEEN_TRIES = Path(sys.argv[1]), 0.05
uuids = sys.argv[3:]
if sys.argv[2] == "any":
    index = gpu_claims.claim_free_gpu(uuids)
else:
    gpu_claims.claim_gpu(uuids, index := int(sys.argv[2]))
print(uuids[index], flush=True)
signal.pause()
"""
# eight devices that only torch.cuda knows of, of which CUDA_VISIBLE_DEVICES leaves some
PRETENDED = """
import os, sys, types
from pathlib import Path
import torch
from moonshine import device, gpu_claims
from moonshine.params.schema import Machine
gpu_claims.FOLDER = Path(sys.argv[1])
visible = [int(index) for index in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: len(visible)
torch.cuda.get_device_properties = lambda index: types.SimpleNamespace(uuid=f"GPU-{visible[index]}")
torch.cuda.set_device = lambda index: print("current device:", index)
print(device.choose_device(Machine()), device.choose_device(Machine()), device.choose_device(Machine(device="cpu")))
"""


class Jobs:
    def __init__(self, folder: Path):
        self.folder, self.running = folder, []

    def start(self, *uuids: str, which: str = "any") -> subprocess.Popen[str]:
        job = subprocess.Popen(
            [sys.executable, "-c", JOB, str(self.folder), which, *uuids],
            env=environment(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(job)
        return job


def device_of(job: subprocess.Popen[str]) -> str:
    assert job.stdout is not None
    return job.stdout.readline().strip()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path / "gpus")
    yield jobs
    for job in jobs.running:
        job.kill()
        job.communicate()


def test_eight_jobs_take_eight_devices(jobs: Jobs) -> None:
    started = [jobs.start(*GPUS) for _ in GPUS]
    assert sorted(device_of(job) for job in started) == GPUS


def test_jobs_that_see_some_devices_take_those(jobs: Jobs) -> None:
    """As with CUDA_VISIBLE_DEVICES: each job numbers what it sees from 0, in its own order."""
    first, second = jobs.start("GPU-5", "GPU-3"), jobs.start("GPU-3", "GPU-5")
    assert {device_of(first), device_of(second)} == {"GPU-3", "GPU-5"}


def test_a_job_waits_for_one_that_ends_however_it_ends(jobs: Jobs) -> None:
    first = jobs.start("GPU-0")
    assert device_of(first) == "GPU-0"
    second = jobs.start("GPU-0")
    assert second.stderr is not None
    assert "all 1 GPUs are taken by other jobs; waiting" in second.stderr.readline()
    first.send_signal(signal.SIGKILL)
    assert device_of(second) == "GPU-0"


def test_processes_of_one_training_do_not_wait_for_each_others_devices(jobs: Jobs) -> None:
    assert device_of(jobs.start("GPU-0", "GPU-1", which="1")) == "GPU-1"
    taken = jobs.start("GPU-0", "GPU-1", which="1")
    assert "MachineError: GPU 1 is taken by another job" in taken.communicate()[1]
    too_many = jobs.start("GPU-0", "GPU-1", which="2")
    assert "MachineError: 3 processes on this machine, but 2 GPUs" in too_many.communicate()[1]


def test_a_stage_computes_on_the_device_that_it_claimed(jobs: Jobs) -> None:
    assert device_of(jobs.start("GPU-6")) == "GPU-6"
    command = [sys.executable, "-c", PRETENDED, str(jobs.folder)]
    seen = environment(CUDA_VISIBLE_DEVICES="6,2,7")
    output = subprocess.run(command, env=seen, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == ["current device: 1", "cuda:1 cuda:1 cpu"]


@pytest.mark.parametrize(
    ("device", "granted", "message"),
    [
        ("cuda", "", "machine.device: cuda, but torch finds no GPU"),
        ("auto", "GPU-none", "CUDA_VISIBLE_DEVICES is GPU-none, but"),
    ],
)
def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error(
    device: str, granted: str, message: str, tmp_path: Path
) -> None:
    params = toy_params()
    params["machine"] = {"device": device}
    write_params(tmp_path, params)
    moonshine("prepare", cwd=tmp_path)
    result = moonshine("train", "teacher", "--seed", "0", cwd=tmp_path, check=False, CUDA_VISIBLE_DEVICES=granted)
    assert result.returncode == 5
    assert message in result.stderr
    assert "Traceback" not in result.stderr
