"""A GPU that is there but cannot be used is never replaced by the CPU in silence; here with pretended drivers."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.separate_project import start_and_run, write_params
from moonshine.errors import MachineError
from moonshine.runtime import device, nvidia
from tests.support.project import run_moonshine, toy_params

PROPRIETARY = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sun May 12 19:39:15 UTC 2024\nGCC version: 12.3.0\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (root@host)\nGCC version: 13.2.0\n"


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a GPU that torch does not find; a test writes the driver's version to the file."""
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(nvidia, "CONTROL", tmp_path / "nvidiactl")
    monkeypatch.setattr(nvidia, "VERSION", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "version"


@pytest.mark.parametrize("text", [PROPRIETARY, OPEN])
@pytest.mark.parametrize("version", ["535.183.01", "580.65.06", "610.57"])
def test_the_drivers_version_is_read(text: str, version: str, gpu: Path) -> None:
    gpu.write_text(text.format(version))
    assert nvidia.driver_version() == version


@pytest.mark.parametrize("text", [None, "", "NVRM version: of another kind\n"])
def test_a_driver_without_a_version_is_no_error_in_itself(text: str | None, gpu: Path) -> None:
    if text is not None:
        gpu.write_text(text)
    assert nvidia.driver_version() is None
    with pytest.raises(MachineError, match=r"torch finds no GPU \(driver unknown, CUDA 13\.0\); see why with"):
        device.choose_device("auto", 1)


@pytest.mark.parametrize(
    ("driver", "cuda", "cause"),
    [
        ("535.183.01", "13.0", "the driver is 535.183.01 and CUDA 13.0 of this torch needs 580 or newer; update the"),
        ("470.82.01", "12.8", "the driver is 470.82.01 and CUDA 12.8 of this torch needs 525 or newer; update the"),
        ("580.65.06", "13.0", "torch finds no GPU (driver 580.65.06, CUDA 13.0); see why with `python -c"),
        ("470.82.01", "14.1", "torch finds no GPU (driver 470.82.01, CUDA 14.1); see why with `python -c"),
        ("580.65.06", None, "this torch was built without CUDA; install one with CUDA, or set machine.device: cpu"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_not_replaced_by_the_cpu(
    driver: str, cuda: str | None, cause: str, gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.write_text(OPEN.format(driver))
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(MachineError) as refused:
        device.choose_device("auto", 1)
    message = str(refused.value)
    assert message.startswith(f"machine.device: auto and {nvidia.CONTROL} exists, but {cause}")
    assert message.endswith(", or set machine.device: cpu")
    assert device.missing_gpu("auto") == message


@pytest.mark.parametrize(("wanted", "visible"), [("cuda", ""), ("cuda", "7"), ("auto", "7")])
def test_a_variable_that_names_no_gpu_is_named(
    wanted: str, visible: str, gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.write_text(OPEN.format("580.65.06"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    message = device.missing_gpu(wanted)
    assert message is not None
    assert f'but torch finds no GPU with CUDA_VISIBLE_DEVICES="{visible}"; unset it, or name' in message


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_who_hides_the_gpus_wants_the_cpu(hidden: str, gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert device.choose_device("auto", 1) == torch.device("cpu")
    assert device.choose_device("cpu", 1) == torch.device("cpu")


def test_a_machine_without_a_gpu_computes_on_the_cpu(gpu: Path) -> None:
    nvidia.CONTROL.unlink()
    assert device.choose_device("auto", 1) == torch.device("cpu")


COMMAND = """
import os, sys
from pathlib import Path
import torch
from moonshine.cli import main
from moonshine.runtime import nvidia
nvidia.CONTROL, nvidia.VERSION = Path.cwd(), Path("version")
torch.cuda.is_available = lambda: False
os.environ.pop("CUDA_VISIBLE_DEVICES", None)
sys.exit(main(sys.argv[1:]))
"""


def test_a_command_ends_with_5_and_check_warns_of_it(tmp_path: Path) -> None:
    params = toy_params()
    params["machine"] = {}
    write_params(tmp_path, params)
    (tmp_path / "version").write_text(PROPRIETARY.format("390.157"))
    run_moonshine("prepare", cwd=tmp_path)

    program = (sys.executable, "-c", COMMAND)
    refused = start_and_run(*program, "train", "teacher", "--seed", "0", cwd=tmp_path, check=False)
    assert refused.returncode == 5
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("; update the driver, or set machine.device: cpu")
    assert not (tmp_path / "models").exists()
    checked = start_and_run(*program, "check", cwd=tmp_path)
    assert f"warning: params.yaml: {line.removeprefix('error: ')}" in checked.stderr.splitlines()
