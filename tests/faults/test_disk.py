"""Disks that fill up, folders that must not be written: a message with bytes needed and free, and nothing lost."""

import os
import re
import resource
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from moonshine.runtime.files import free_bytes
from tests.faults.experiment import TRAIN, Experiment, Injections
from tests.faults.forked import command, start

CHECKPOINT = 110_000
"""A little more than the bytes of one."""
root = pytest.mark.skipif(os.getuid() != 0, reason="mounting and changing users need root")


@pytest.fixture
def mounted(untrained: Path) -> Iterator[Path]:
    """runs/ on a disk of its own."""
    runs = untrained / "runs"
    runs.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", runs], capture_output=True).returncode:
        pytest.skip("no right to mount")
    yield untrained
    subprocess.run(["umount", runs], check=True)


def leave_free(folder: Path, size: int) -> Path:
    filler = folder / "filler"
    filler.write_bytes(bytes(free_bytes(folder) - size))
    return filler


@root
def test_a_disk_too_small_is_told_before_any_work(mounted: Path, injected: Injections) -> None:
    with injected("a disk without room for three checkpoints, before training"):
        leave_free(mounted / "runs", 2 * CHECKPOINT)
        result = command(mounted, *TRAIN)
        assert result.code == 5
        assert re.search(r"2 checkpoints and the next one: [\d,]+ bytes needed, [\d,]+ bytes free there", result.output)
        assert "Traceback" not in result.output


@root
def test_a_disk_that_fills_up_costs_nothing(mounted: Path, experiment: Experiment, injected: Injections) -> None:
    with injected("a disk that fills up during training"):
        running = start(mounted, *TRAIN, pause="end of epoch")
        before = sorted(path.name for path in mounted.glob("runs/**/step-*"))
        assert len(before) == 4
        filler = leave_free(mounted / "runs", 50_000)
        running.go_on()
        result = running.finish()
        assert result.code == 9
        assert re.search(
            r"writing failed \(No space left on device\); [\d,]+ bytes needed, [\d,]+ bytes free there", result.output
        )
        assert "make room and run the same command again" in result.output
        assert "Traceback" not in result.output
        assert sorted(path.name for path in mounted.glob("runs/**/step-*")) == before
        assert not list(mounted.glob("runs/**/.*.tmp-*"))
        filler.unlink()
        result = command(mounted, *TRAIN)
        assert "resuming from epoch 1, batch 3" in result.output
        assert experiment.unharmed(mounted)


@root
@pytest.mark.parametrize("folder", ["runs", "models"])
def test_a_read_only_disk_is_named(folder: str, untrained: Path, experiment: Experiment, injected: Injections) -> None:
    target = untrained / folder
    target.mkdir()
    with injected("a read-only disk"):
        mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1M", "tmpfs", target]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("no right to mount")
        try:
            result = command(untrained, *TRAIN)
        finally:
            subprocess.run(["umount", target], check=True)
        assert result.code == 5
        assert f"error: {folder}/toy/" in result.output
        assert "Read-only file system" in result.output
        assert "Traceback" not in result.output
        assert command(untrained, *TRAIN).code == 0
        assert experiment.unharmed(untrained)


@root
@pytest.mark.parametrize("folder", ["runs", "models", "logs"])
def test_no_permission_is_named(folder: str, untrained: Path, experiment: Experiment, injected: Injections) -> None:
    """A user who may write everywhere but in one folder; without a log the work goes on."""
    user = 12345
    (untrained / folder).mkdir()
    for path in [untrained, *untrained.rglob("*")]:
        os.chown(path, user, user)
    os.chown(untrained / folder, 0, 0)
    for parent in untrained.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    with injected("a folder without permission to write"):
        result = command(untrained, *TRAIN, prepare=partial(os.setuid, user))
        assert "Permission denied" in result.output
        assert "Traceback" not in result.output
        if folder == "logs":
            assert result.code == 0
        else:
            assert result.code == 5
            assert f"error: {folder}/toy" in result.output
            os.chown(untrained / folder, user, user)
            assert command(untrained, *TRAIN, prepare=partial(os.setuid, user)).code == 0
        assert experiment.unharmed(untrained)


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHECKPOINT // 2, CHECKPOINT // 2))


@pytest.mark.slow
def test_a_limit_on_file_size_is_named(untrained: Path, experiment: Experiment, injected: Injections) -> None:
    with injected("a limit on file sizes"):
        result = command(untrained, *TRAIN, prepare=limit_file_size)
        assert result.code == 9
        assert "File too large" in result.output
        assert "Traceback" not in result.output
        assert command(untrained, *TRAIN).code == 0
        assert experiment.unharmed(untrained)


def output_to_a_full_disk() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def test_messages_and_logs_on_a_full_disk_do_not_stop_the_work(untrained: Path, experiment: Experiment) -> None:
    log = untrained / "logs/toy/train/teacher/seed0.log"
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    assert command(untrained, *TRAIN, prepare=output_to_a_full_disk).code == 0
    assert experiment.unharmed(untrained)
