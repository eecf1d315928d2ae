"""The number of loading workers follows from CPUs, quotas, GPUs, processes and shared memory."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from moonshine.runtime import control_groups, cpus, device, distributed, loading_workers
from moonshine.runtime.cpus import usable_cpus

BATCH = 256 * 224 * 224 * 3


@pytest.mark.parametrize(
    ("membership", "usable"),
    [
        ("0::/job/step\n", 3),  # two and a half CPUs for the job around the step
        ("0::/elsewhere\n", 64),
        ("0::/\n", 64),
        ("9:cpuset:/v1\n5:cpu,cpuacct:/v1/step\n4:memory:/v1\n0::/\n", 2),
        ("5:cpuacct,cpu:/free\n", 64),
        ("", 64),
    ],
    ids=["a job's step", "a group not seen here", "the root", "version 1", "version 1 without a limit", "no groups"],
)
def test_control_groups_limit_the_cpus(
    membership: str, usable: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for group, name, content in (
        ("job", "cpu.max", "250000 100000"),
        ("job/step", "cpu.max", "max 100000"),
        ("cpu/v1", "cpu.cfs_quota_us", "100000"),
        ("cpu/v1", "cpu.cfs_period_us", "50000"),
        ("cpu/v1/step", "cpu.cfs_quota_us", "-1"),
        ("cpu/v1/step", "cpu.cfs_period_us", "100000"),
        ("cpu/free", "cpu.cfs_quota_us", "-1"),
        ("cpu/free", "cpu.cfs_period_us", "100000"),
    ):
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / name).write_text(f"{content}\n")
    (tmp_path / "memberships").write_text(membership)
    monkeypatch.setattr(control_groups, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(control_groups, "MEMBERSHIPS", tmp_path / "memberships")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert usable_cpus() == usable


def test_no_quota_adds_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    monkeypatch.setattr(cpus, "_quotas", lambda: iter([8]))
    assert usable_cpus() == 1


class Machine:
    """What a process is told of the machine that it runs on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._patch = monkeypatch
        self.messages: list[str] = []
        monkeypatch.setattr(loading_workers, "_say_once", self.messages.append)

    def workers(
        self,
        *,
        cpus: int,
        gpus: int = 0,
        processes: int = 1,
        shared_memory: int = 10**12,
        wanted: int | None = None,
        batch_bytes: int = BATCH,
    ) -> int:
        self._patch.setattr(loading_workers, "usable_cpus", lambda: cpus)
        self._patch.setattr(loading_workers, "slots_in_reach", lambda: gpus)
        self._patch.setattr(loading_workers, "_free_shared_memory", lambda: shared_memory)
        self._patch.setattr(distributed, "LOCAL_WORLD_SIZE", processes)
        return loading_workers.loading_workers(wanted, gpus > 0, batch_bytes)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_processes_on_cpus_share_them(machine: Machine) -> None:
    assert machine.workers(cpus=12) == 12
    assert machine.workers(cpus=12, processes=5) == 2
    assert machine.workers(cpus=2, processes=3) == 1
    assert machine.workers(cpus=128) == 16
    assert machine.messages == []


def test_gpus_share_the_cpus_whichever_of_them_this_job_has(machine: Machine) -> None:
    """One job takes a GPU of eight, another has four; a cluster's job sees only its own two, and its own CPUs."""
    assert machine.workers(cpus=96, gpus=8) == 12
    assert machine.workers(cpus=96, gpus=8, processes=4) == 12
    assert machine.workers(cpus=24, gpus=2, processes=2) == 12
    assert machine.workers(cpus=192, gpus=2) == 16
    assert machine.messages == []


def test_gpus_with_few_cpus_are_warned_of(machine: Machine) -> None:
    assert machine.workers(cpus=1, gpus=1) == 1
    assert machine.workers(cpus=28, gpus=8, wanted=12) == 12
    assert [message.partition(";")[0] for message in machine.messages] == [
        "warning: CPUs per training on a GPU: 1",
        "warning: CPUs per training on a GPU: 3.5",
    ]


def test_workers_leave_room_in_shared_memory(machine: Machine) -> None:
    """Docker's 64 MB hold no two batches of a worker, and it has one nevertheless."""
    of_a_worker = 2 * BATCH
    assert machine.workers(cpus=16, shared_memory=2 * 5 * of_a_worker) == 5
    assert machine.workers(cpus=16, processes=2, shared_memory=2 * 5 * of_a_worker) == 2
    assert machine.workers(cpus=16, shared_memory=64 * 2**20) == 1
    assert machine.workers(cpus=16, shared_memory=64 * 2**20, batch_bytes=20 * 2**10) == 16
    assert machine.workers(cpus=16, shared_memory=64 * 2**20, wanted=16) == 16
    assert len(machine.messages) == 3
    assert machine.messages[0].startswith("warning: loading workers: 5 instead of 16, for lack of room")


def test_a_message_is_printed_once_for_all_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        loading_workers._say_once("warning: said twice")
    assert capsys.readouterr().err.count("warning: said twice") == 1


def test_the_free_shared_memory_is_that_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    status = SimpleNamespace(f_frsize=4096, f_bavail=3, f_bfree=5)
    monkeypatch.setattr(os, "statvfs", lambda path: {loading_workers.SHARED_MEMORY: status}[path])
    assert loading_workers._free_shared_memory() == 3 * 4096


def test_gpus_that_the_parent_left_to_others_are_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.torch.cuda, "device_count", lambda: 2)
    assert device.slots_in_reach() == 2
    monkeypatch.setenv(device.IN_REACH, "8")
    assert device.slots_in_reach() == 8
    monkeypatch.setattr(device, "_jobs_per_gpu", 3)
    assert device.slots_in_reach() == 24
