"""Jobs on one machine take different GPUs; here with eight pretended ones."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.separate_project import ROOT, environment, write_params
from moonshine.runtime import device, gpu_claims
from tests.support.project import run_moonshine, toy_params

GPUS = [f"GPU-{number}" for number in range(8)]
# what a job does, without torch: claim, tell, and compute until somebody stops it
JOB = """
import os, signal, sys
from pathlib import Path
from moonshine.runtime import gpu_claims
gpu_claims.FOLDER, gpu_claims.SECONDS_BETWEEN_TRIES = Path(sys.argv[1]), 0.05
if user := os.environ.get("AS_USER"):
    os.setuid(int(user))
uuids = sys.argv[3:]
how, argument, limit = sys.argv[2].split()
if how == "free":
    taken = [claim.slot for claim in gpu_claims.claim_free_gpus(uuids, int(argument), int(limit))]
elif how == "share":
    gpu_claims.share_gpu(uuids[0], argument)
    taken = [argument]
else:
    gpu_claims.claim_gpu(uuids, int(argument), int(limit))
    taken = [uuids[int(argument)]]
print(*taken, flush=True)
signal.pause()
"""
# what a checkout without machine.trainings_per_gpu does with the one file of a device, as a job or torchrun's process
OLDER = """
import fcntl, os, signal, sys
from pathlib import Path
path = Path(sys.argv[1], sys.argv[2])
path.parent.mkdir(exist_ok=True)
descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o444)
try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit("taken")
if sys.argv[3] == "job":
    fcntl.flock(descriptor, fcntl.LOCK_SH)
print(path.name, flush=True)
signal.pause()
"""
# eight devices that only torch.cuda knows of, of which CUDA_VISIBLE_DEVICES leaves some
PRETENDED = """
import os, signal, sys, types
from pathlib import Path
import torch
from moonshine.runtime import device, gpu_claims
LIMIT = int(os.environ.get("LIMIT", 1))
gpu_claims.FOLDER = Path(os.environ["CLAIMS"])
visible = [int(index) for index in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: len(visible)
torch.cuda.get_device_properties = lambda index: types.SimpleNamespace(uuid=f"GPU-{visible[index]}")
torch.cuda.set_device = lambda index: print("current device:", index)
"""
STAGE = f"""{PRETENDED}
print(device.choose_device("auto", 1), device.choose_device("auto", 1), device.choose_device("cpu", 1))
"""
RANK = f"""{PRETENDED}
print(os.environ["LOCAL_RANK"], os.environ["CUDA_VISIBLE_DEVICES"], device.choose_device("auto", LIMIT), sep="; ")
"""
# what `moonshine train` does with recipe.processes: 2, but its processes only tell which device they compute on
TRAINING = f"""{PRETENDED}
from torch.distributed.launcher import api
from moonshine.runtime import torchrun
from moonshine.errors import Interrupted
launch = api.elastic_launch
api.elastic_launch = lambda config, program: lambda *command: launch(config, program)("-c", os.environ["RANK_DOES"])
try:
    sys.exit(torchrun.run_processes(2, "auto", LIMIT))
except Interrupted as stopped:
    print(stopped)
    sys.exit(stopped.exit_code)
"""


class Jobs:
    def __init__(self, folder: Path):
        self.folder, self.running = folder, []

    def start(self, *uuids: str, how: str = "free 1", limit: int = 1, **extra: str) -> subprocess.Popen[str]:
        return self.run(sys.executable, "-c", JOB, str(self.folder), f"{how} {limit}", *uuids, **extra)

    def start_older(self, uuid: str, how: str) -> subprocess.Popen[str]:
        return self.run(sys.executable, "-c", OLDER, str(self.folder), uuid, how)

    def run(self, *command: str, **extra: str) -> subprocess.Popen[str]:
        job = subprocess.Popen(
            command,
            env=environment(CLAIMS=str(self.folder), **extra),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(job)
        return job


def device_of(job: subprocess.Popen[str]) -> str:
    """Of several devices, all with spaces between."""
    assert job.stdout is not None
    return job.stdout.readline().strip()


def waits(job: subprocess.Popen[str]) -> str:
    """What a job says that finds too few devices."""
    assert job.stderr is not None
    said = job.stderr.readline()
    assert "waiting for other jobs to end" in said
    return said


def refuses(older: subprocess.Popen[str]) -> None:
    """A job of an older checkout finds its device taken."""
    assert device_of(older) == ""
    assert older.communicate()[1] == "taken\n"


def next_with_devices(started: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    readable, _, _ = select.select([job.stdout for job in started], [], [])
    return next(job for job in started if job.stdout in readable)


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
    assert "0 of 1 GPUs are free and this job takes 1; waiting" in waits(second)
    first.send_signal(signal.SIGKILL)
    assert device_of(second) == "GPU-0"


def test_processes_of_one_training_do_not_wait_for_each_others_devices(jobs: Jobs) -> None:
    assert device_of(jobs.start("GPU-0", "GPU-1", how="this 1")) == "GPU-1"
    taken = jobs.start("GPU-0", "GPU-1", how="this 1")
    assert "MachineError: GPU 1 is taken by another job" in taken.communicate()[1]
    too_many = jobs.start("GPU-0", "GPU-1", how="this 2")
    assert "MachineError: 3 processes on this machine, but 2 GPUs" in too_many.communicate()[1]


def test_trainings_of_two_processes_run_side_by_side_while_devices_last(jobs: Jobs) -> None:
    """And the claims of one that is killed are free again."""
    started = [jobs.start(*GPUS, how="free 2") for _ in range(4)]
    taken = [device_of(job) for job in started]
    assert sorted(" ".join(taken).split()) == GPUS
    fifth = jobs.start(*GPUS, how="free 2")
    assert "0 of 8 GPUs are free and this job takes 2; waiting" in waits(fifth)
    started[2].kill()
    assert device_of(fifth) == taken[2]


def test_trainings_that_do_not_fit_together_wait_with_no_device(jobs: Jobs) -> None:
    """Each wants two of three: one computes, the other leaves the third to whoever needs no more."""
    three = GPUS[:3]
    first = jobs.start(*three, how="free 2")
    assert device_of(first) == "GPU-0 GPU-1"
    second = jobs.start(*reversed(three), how="free 2")
    assert "1 of 3 GPUs are free and this job takes 2; waiting" in waits(second)
    third = jobs.start(*three)
    assert device_of(third) == "GPU-2"
    first.kill()
    assert device_of(second) == "GPU-1 GPU-0"


def test_many_trainings_that_start_at_once_all_get_their_turn(jobs: Jobs) -> None:
    for _ in range(2):
        started = [jobs.start(*order, how="free 2") for order in (GPUS[:3], GPUS[2::-1], GPUS[1:3], GPUS[:2])]
        while started:
            done = next_with_devices(started)
            assert len(device_of(done).split()) == 2
            done.kill()
            started.remove(done)


def test_more_processes_than_devices_is_an_error(jobs: Jobs) -> None:
    job = jobs.start("GPU-0", "GPU-1", how="free 3")
    assert "MachineError: 3 processes on this machine, but 2 GPUs" in job.communicate()[1]


def test_a_device_stays_taken_while_a_process_of_the_training_lives(jobs: Jobs) -> None:
    parent = jobs.start("GPU-0", "GPU-1", how="free 2")
    device_of(parent)
    process = jobs.start("GPU-1", how="share GPU-1")
    assert device_of(process) == "GPU-1"
    parent.kill()
    parent.wait()
    assert device_of(jobs.start("GPU-1", "GPU-0")) == "GPU-0"
    waiting = jobs.start("GPU-1")
    waits(waiting)
    process.kill()
    assert device_of(waiting) == "GPU-1"


def test_two_jobs_share_a_device_and_a_third_waits_for_a_slot(jobs: Jobs) -> None:
    first, second = (jobs.start("GPU-0", limit=2) for _ in range(2))
    slots = [device_of(first), device_of(second)]
    assert sorted(slots) == ["GPU-0.0-of-2", "GPU-0.1-of-2"]
    third = jobs.start("GPU-0", limit=2)
    assert "0 of 1 GPUs are free and this job takes 1; waiting" in waits(third)
    first.kill()
    assert device_of(third) == slots[0]


def test_jobs_spread_over_devices_before_they_share_one(jobs: Jobs) -> None:
    slots = [device_of(jobs.start("GPU-0", "GPU-1", limit=2)) for _ in range(4)]
    assert slots == ["GPU-0.0-of-2", "GPU-1.0-of-2", "GPU-0.1-of-2", "GPU-1.1-of-2"]


def test_a_job_that_shares_with_nobody_gets_a_device_of_its_own(jobs: Jobs) -> None:
    sharing = jobs.start("GPU-0", limit=2)
    device_of(sharing)
    assert device_of(jobs.start("GPU-0", "GPU-1")) == "GPU-1"
    alone = jobs.start("GPU-0")
    waits(alone)
    sharing.kill()
    assert device_of(alone) == "GPU-0"
    waits(jobs.start("GPU-0", limit=2))


def test_the_lowest_limit_holds_for_all_jobs_of_a_device(jobs: Jobs) -> None:
    device_of(jobs.start("GPU-0", limit=3))
    second = jobs.start("GPU-0", limit=2)
    assert device_of(second) == "GPU-0.0-of-2"
    for limit in (2, 3, 9):
        waits(jobs.start("GPU-0", limit=limit))
    second.kill()


def test_no_device_ever_has_more_jobs_than_any_of_them_allows(jobs: Jobs) -> None:
    """All start at once; one ends whenever both devices are in use."""
    limits = [1, 2, 2, 3, 2, 1, 3, 3, 2, 1, 2, 3]
    waiting = {jobs.start("GPU-0", "GPU-1", limit=limit): limit for limit in limits}
    running: list[tuple[subprocess.Popen[str], str, int]] = []
    while waiting or running:
        while waiting and (len(running) < 2 or select.select([job.stdout for job in waiting], [], [], 0)[0]):
            job = next_with_devices(list(waiting))
            running.append((job, device_of(job).partition(".")[0], waiting.pop(job)))
        for device_name in ("GPU-0", "GPU-1"):
            there = [limit for _, name, limit in running if name == device_name]
            assert len(there) <= min(there, default=0), running
        ended, *_ = running.pop(0)
        ended.kill()
        ended.wait()


def test_processes_of_one_training_take_a_slot_each_on_different_devices(jobs: Jobs) -> None:
    two = GPUS[:2]
    assert device_of(jobs.start(*two, how="free 2", limit=2)) == "GPU-0.0-of-2 GPU-1.0-of-2"
    assert device_of(jobs.start(*two, how="this 1", limit=2)) == "GPU-1"
    third = jobs.start(*two, how="free 2", limit=2)
    assert "1 of 2 GPUs are free and this job takes 2; waiting" in waits(third)
    taken = jobs.start(*two, how="this 1", limit=2)
    assert "MachineError: GPU 1 is taken by another job" in taken.communicate()[1]
    too_many = jobs.start(*two, how="free 3", limit=2)
    assert "MachineError: 3 processes on this machine, but 2 GPUs" in too_many.communicate()[1]


def test_a_slot_stays_taken_while_a_process_of_the_training_lives(jobs: Jobs) -> None:
    parent = jobs.start("GPU-0", limit=2)
    slot = device_of(parent)
    process = jobs.start("GPU-0", how=f"share {slot}")
    device_of(process)
    parent.kill()
    parent.wait()
    refuses(jobs.start_older("GPU-0", "job"))
    assert device_of(jobs.start("GPU-0", limit=2)) == "GPU-0.1-of-2"
    waiting = jobs.start("GPU-0", limit=2)
    waits(waiting)
    process.kill()
    assert device_of(waiting) == slot


@pytest.mark.parametrize("how", ["job", "process"])
def test_an_older_checkout_has_its_device_to_itself(how: str, jobs: Jobs) -> None:
    older = jobs.start_older("GPU-0", how)
    device_of(older)
    sharing = jobs.start("GPU-0", limit=2)
    waits(sharing)
    older.kill()
    assert device_of(sharing) == "GPU-0.0-of-2"
    refuses(jobs.start_older("GPU-0", how))


def test_jobs_of_different_users_share_a_device(jobs: Jobs) -> None:
    """Each locks files that the other has made and it cannot write. Only root can start jobs as another user."""
    another = {"AS_USER": "65534"} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)  # as /tmp is
        jobs.folder = Path(folder, "gpus")
        for uuid, extra in (("GPU-0", {}), ("GPU-1", another)):
            assert device_of(jobs.start(uuid, limit=2, **extra)) == f"{uuid}.0-of-2"
        assert {path.stat().st_mode & 0o777 for path in jobs.folder.iterdir()} == {0o444}
        for uuid, extra in (("GPU-0", another), ("GPU-1", {})):
            assert device_of(jobs.start(uuid, limit=2, **extra)) == f"{uuid}.1-of-2"
            waits(jobs.start(uuid, **extra))


def test_a_stage_computes_on_the_device_that_it_claimed(jobs: Jobs) -> None:
    assert device_of(jobs.start("GPU-6")) == "GPU-6"
    stage = jobs.run(sys.executable, "-c", STAGE, CUDA_VISIBLE_DEVICES="6,2,7")
    assert stage.communicate()[0].splitlines() == ["current device: 1", "cuda:1 cuda:1 cpu"]


@pytest.mark.parametrize(
    ("wanted", "given", "left"),
    [
        ("auto", None, "0,1"),
        ("cuda", "6,2,7,5", "2,5"),
        ("cuda", "GPU-6,GPU-2,GPU-7,GPU-5", "GPU-2,GPU-5"),
        ("cpu", "6,7", "6,7"),
    ],
)
def test_processes_see_free_ones_of_the_devices_that_were_given(
    wanted: Any, given: str | None, left: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    device_of(jobs.start("GPU-6", "GPU-7", how="free 2"))
    seen = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    listed = [name.removeprefix("GPU-") for name in (given or "0,1,2,3,4,5,6,7").split(",")]
    monkeypatch.setattr(gpu_claims, "FOLDER", jobs.folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(listed))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"GPU-{listed[index]}"))
    monkeypatch.setattr(os, "environ", seen)
    device.claim_gpus(wanted, 2, 1)
    assert seen["CUDA_VISIBLE_DEVICES"] == left
    slots = ",".join(f"GPU-{name.removeprefix('GPU-')}" for name in left.split(","))
    assert seen.get(device.CLAIMED) == (None if wanted == "cpu" else slots)
    assert device.slots_in_reach() == len(listed)


@pytest.mark.slow
def test_processes_compute_on_the_devices_that_their_parent_claimed(jobs: Jobs) -> None:
    """Through torchrun itself: that it passes the environment on."""
    device_of(jobs.start("GPU-0", "GPU-2", how="free 2"))
    training = jobs.run(sys.executable, "-c", TRAINING, RANK_DOES=RANK, CUDA_VISIBLE_DEVICES="0,1,2,3")
    assert sorted(training.communicate()[0].splitlines()) == [
        "0; 1,3; cuda:0",
        "1; 1,3; cuda:1",
        "current device: 0",
        "current device: 1",
    ]


def test_a_process_holds_the_slot_that_its_parent_claimed_for_it(jobs: Jobs) -> None:
    parent = jobs.start("GPU-0", "GPU-1", how="free 2", limit=2)
    slots = device_of(parent).split()
    started = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    claimed = {device.CLAIMED: ",".join(slots), "CUDA_VISIBLE_DEVICES": "0,1", "LIMIT": "2"}
    rank = jobs.run(sys.executable, "-c", f"{RANK}\nsys.stdout.flush(); signal.pause()", **started, **claimed)
    assert device_of(rank) == "current device: 1"
    parent.kill()
    parent.wait()
    assert device_of(jobs.start("GPU-1", limit=2)) == "GPU-1.1-of-2"
    waiting = jobs.start("GPU-1", limit=2)
    waits(waiting)
    rank.kill()
    assert device_of(waiting) == slots[1]


@pytest.mark.slow
def test_processes_of_torchrun_by_hand_claim_their_devices(jobs: Jobs) -> None:
    device_of(jobs.start("GPU-0"))
    started = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    rank = jobs.run(sys.executable, "-c", RANK, CUDA_VISIBLE_DEVICES="0,1", **started)
    assert "GPU 0 is taken by another job" in rank.communicate()[1]


def test_a_training_that_waits_stops_on_request(jobs: Jobs) -> None:
    device_of(jobs.start("GPU-0"))
    training = jobs.run(sys.executable, "-c", TRAINING, CUDA_VISIBLE_DEVICES="0,1")
    assert "1 of 2 GPUs are free and this job takes 2" in waits(training)
    training.send_signal(signal.SIGTERM)
    assert training.communicate()[0] == "stopped by SIGTERM: it waited for GPUs, nothing is lost\n"
    assert training.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("wanted", "granted", "message"),
    [
        ("cuda", "", "machine.device: cuda, but torch finds no GPU"),
        ("auto", "GPU-none", "CUDA_VISIBLE_DEVICES is GPU-none, but"),
    ],
)
def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error(
    wanted: str, granted: str, message: str, tmp_path: Path
) -> None:
    params = toy_params()
    params["machine"] = {"device": wanted}
    write_params(tmp_path, params)
    run_moonshine("prepare", cwd=tmp_path)
    result = run_moonshine("train", "teacher", "--seed", "0", cwd=tmp_path, check=False, CUDA_VISIBLE_DEVICES=granted)
    assert result.returncode == 5
    assert message in result.stderr
    assert "Traceback" not in result.stderr
