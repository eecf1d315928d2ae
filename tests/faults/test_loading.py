"""Photographs while they are prepared and loaded: kills, stops, a full disk, memory over many epochs."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data._utils import pin_memory

from benchmarks.separate_project import environment, write_params
from moonshine.data import jpeg_images
from moonshine.data.jpeg_images import JpegImages
from moonshine.data.order import epoch_order
from moonshine.errors import DataError, MachineError
from moonshine.params.schema import Augmentation
from moonshine.runtime.files import sha256
from tests.faults.experiment import Injections
from tests.support.imagenet_archives import Archives, jpeg_params
from tests.support.project import files_below, is_stopped, run_moonshine

CLASSES = 40


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Archives of ILSVRC2012's layout, and the toy experiment on them."""
    folder = tmp_path_factory.mktemp("raw")
    files = Archives(classes=CLASSES, train=30, val=80).write(folder)
    return folder, jpeg_params("imagenet", folder, CLASSES, files=files)


@pytest.fixture(scope="module")
def prepared(raw: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_params(folder, raw[1])
    run_moonshine("prepare", cwd=folder)
    return folder


def start(folder: Path, *arguments: str, program: tuple[str, str] = ("-m", "moonshine")) -> "subprocess.Popen[str]":
    command = [sys.executable, *program, *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)


def wait_for(found: Callable[[], Any], process: "subprocess.Popen[str]") -> Any:
    while not (value := found()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    return value


HALF_MADE = """
import os, signal
from moonshine import cli
from moonshine.images import store

batches, make_batch = 0, store._batch

def stop_when_the_first_is_written(*arguments):
    global batches
    batches += 1
    if batches == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
    return make_batch(*arguments)

store._batch = stop_when_the_first_is_written
cli.run()
"""


def half_made(folder: Path) -> list[Path]:
    return [path for path in folder.glob("runs/prepare/imagenet/unfinished/.*") if path.stat().st_size]


@pytest.mark.parametrize("stop", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_stopped_preparation_is_made_again_to_the_same_bytes(
    stop: signal.Signals, raw: tuple[Path, dict[str, Any]], prepared: Path, tmp_path: Path, injected: Injections
) -> None:
    with injected("a stop of the preparation of photographs"):
        write_params(tmp_path, raw[1])
        process = start(tmp_path, "prepare", program=("-c", HALF_MADE))
        wait_for(lambda: is_stopped(process.pid), process)
        assert half_made(tmp_path)
        process.send_signal(stop)
        process.send_signal(signal.SIGCONT)
        said = process.communicate()[1]
        assert process.returncode == (143 if stop == signal.SIGTERM else -9), said
        assert "Traceback" not in said
        assert not (tmp_path / "data/imagenet/manifest.json").exists()
        if stop == signal.SIGTERM:
            assert half_made(tmp_path) == []
        run_moonshine("prepare", cwd=tmp_path)
        assert files_below(tmp_path / "data") == files_below(prepared / "data")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder whose data/ is on a disk of its own."""
    data = tmp_path / "data"
    data.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", data], capture_output=True).returncode:
        pytest.skip("no right to mount")
    yield tmp_path
    subprocess.run(["umount", data], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_disk_too_small_for_the_photographs_is_told(
    small_disk: Path, raw: tuple[Path, dict[str, Any]], injected: Injections
) -> None:
    with injected("a disk without room for the photographs"):
        write_params(small_disk, raw[1])
        result = run_moonshine("prepare", cwd=small_disk, check=False)
        assert result.returncode in (5, 9)
        assert "bytes needed" in result.stderr
        assert "bytes free" in result.stderr
        assert "Traceback" not in result.stderr
        assert [path for path in small_disk.glob("data/**/*") if path.is_file()] == []


@pytest.mark.slow
def test_a_killed_loading_worker_ends_the_run_which_then_goes_on(
    raw: tuple[Path, dict[str, Any]], prepared: Path, tmp_path: Path, injected: Injections
) -> None:
    with injected("kill -9 of a loading worker"):
        params = raw[1] | {"recipe": raw[1]["recipe"] | {"epochs": 6}}
        for name in ("harmed", "unharmed"):
            (tmp_path / name).mkdir()
            write_params(tmp_path / name, params)
            (tmp_path / name / "data").symlink_to(prepared / "data")
        process = start(tmp_path / "harmed", "train", "teacher", "--seed", "0")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        both = wait_for(lambda: found if len(found := children.read_text().split()) == 2 else None, process)
        os.kill(int(both[0]), signal.SIGKILL)
        said = process.communicate()[1]
        assert process.returncode == 5, said
        assert "a loading worker died or hung" in said
        assert "Traceback" not in said
        for name in ("harmed", "unharmed"):
            run_moonshine("train", "teacher", "--seed", "0", cwd=tmp_path / name)
        harmed, unharmed = (
            tmp_path / name / "models/toy/train/teacher/seed0.safetensors" for name in ("harmed", "unharmed")
        )
        assert sha256(harmed) == sha256(unharmed)


DEFECT = """
from moonshine import cli
from moonshine.training.loop import TrainingLoop

def defect(loop):
    raise ZeroDivisionError("a defect")

TrainingLoop._beat_if_due = defect
cli.run()
"""


@pytest.mark.parametrize("ending", [pytest.param("divergence", marks=pytest.mark.slow), "defect"])
def test_a_training_ends_whatever_its_loading_workers_do(
    ending: str, raw: tuple[Path, dict[str, Any]], prepared: Path, tmp_path: Path, injected: Injections
) -> None:
    """Workers ignore signals, and an error may keep them from being told that no more is wanted."""
    with injected("the sudden end of a training with loading workers"):
        params = raw[1] | {"recipe": raw[1]["recipe"] | {"lr": 1e30 if ending == "divergence" else 0.05}}
        write_params(tmp_path, params)
        (tmp_path / "data").symlink_to(prepared / "data")
        program = ["-m", "moonshine"] if ending == "divergence" else ["-c", DEFECT]
        command = [sys.executable, *program, "train", "teacher", "--seed", "0"]
        ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert ended.returncode == (7 if ending == "divergence" else 1), ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "seconds", "told"),
    [(signal.SIGKILL, 600.0, "exited unexpectedly"), (signal.SIGSTOP, 2.0, "made nothing for 2 seconds")],
)
def test_a_worker_that_dies_or_hangs_before_the_others_have_started_is_noticed(
    harm: signal.Signals,
    seconds: float,
    told: str,
    prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
    injected: Injections,
) -> None:
    started: list[BaseProcess] = []

    def start_and_harm(process: BaseProcess) -> None:
        begin(process)
        assert process.pid is not None
        started.append(process)
        if len(started) == 1:
            os.kill(process.pid, harm)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)

    begin = BaseProcess.start
    monkeypatch.setattr(BaseProcess, "start", start_and_harm)
    monkeypatch.setattr(jpeg_images, "SECONDS_BETWEEN_LOOKS", 0.5)
    monkeypatch.setattr(jpeg_images, "SECONDS_FOR_A_BATCH", seconds)
    with injected(f"{harm.name} of a loading worker before the others have started"):
        data = JpegImages(prepared / "data/imagenet", "val", torch.device("cpu"), workers=2)
        with pytest.raises(MachineError, match=told):
            list(data.evaluation_batches(10))
        assert len(started) == 2
        for process in started:
            process.join()  # as the end of the run does


def test_the_end_of_the_thread_that_pins_batches_is_told(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], injected: Injections
) -> None:
    """torch starts it with a GPU alone; here it copies nothing, and ends as it does if a batch cannot be received."""

    def receive_two(received: Any, pinned: Any, *_: Any) -> None:
        for _ in range(2):
            pinned.put(received.get())
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(pin_memory, "_pin_memory_loop", receive_two)
    monkeypatch.setattr(jpeg_images, "SECONDS_BETWEEN_LOOKS", 0.5)
    data = JpegImages(prepared / "data/imagenet", "val", torch.device("cpu"), workers=1)
    data.device = torch.device("cuda")
    crops = Augmentation(crop_scale=[0.08, 1.0], flip=True)
    batches = data.training_pixels(crops, 0, 1, torch.arange(len(data)).split(10))
    with injected("the end of the thread that pins batches"):
        made = [len(next(batches)) for _ in range(2)]
        with pytest.raises(MachineError, match=r"pinning thread ended: .*Connection reset by peer.*reduce"):
            next(batches)
    assert made == [10, 10]
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_disk_that_fails_while_images_are_read_is_told_with_the_file(
    workers: int, prepared: Path, monkeypatch: pytest.MonkeyPatch, injected: Injections
) -> None:
    def fail(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    data = JpegImages(prepared / "data/imagenet", "val", torch.device("cpu"), workers)
    with injected("EIO while images are read"):
        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(DataError) as error:
            list(data.evaluation_batches(10))
        assert str(error.value).startswith(f"{prepared}/data/imagenet/val.arrow: cannot be read (Input/output error);")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_memory_does_not_grow_while_loading(prepared: Path) -> None:
    """Nor with the file: images are read, not mapped."""
    data = JpegImages(prepared / "data/imagenet", "train", torch.device("cpu"), workers=0)
    crops = Augmentation(crop_scale=[0.08, 1.0], flip=True)

    def epoch(number: int) -> int:
        batches = epoch_order(0, number, len(data)).split(64)
        assert sum(len(pixels) for pixels in data.training_pixels(crops, 0, number, batches)) == len(data)
        return resident_bytes()

    early = [epoch(number) for number in range(1, 4)]
    late = [epoch(number) for number in range(4, 16)]
    assert max(late) - max(early) < 2_000_000
