"""The device to check, and the description of the machine with which each report begins."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from benchmarks.gpu.report import Report
from benchmarks.separate_project import ROOT
from moonshine.errors import MachineError
from moonshine.runtime.cpus import processor, usable_cpus
from moonshine.runtime.device import why_no_gpu
from moonshine.runtime.nvidia import driver_version

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Context:
    """What every part gets."""

    device: torch.device
    tiny: bool
    """Whether this is a rehearsal, with small networks, batches and images."""
    report: Report

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"


def usable_device(kind: str) -> torch.device:
    """The first visible GPU, or the CPU; MachineError (exit code 5) if a GPU is wanted and none can be used.

    The GPU is not claimed as training jobs claim it, because the jobs that are checked must be able to.
    """
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        cause, remedy = why_no_gpu()
        raise MachineError(f"gpu-check: {cause}; {remedy}; without one, make gpu-check DEVICE=cpu TINY=1 rehearses it")
    torch.cuda.set_device(0)
    return torch.device("cuda", 0)


def first_visible_gpu() -> str:
    """What CUDA_VISIBLE_DEVICES has to be for another process to see this process's first GPU alone."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()


def describe_machine(device: torch.device, tiny: bool, parts: list[str]) -> dict[str, Any]:
    """Plain values: what was checked, where, with which versions, and when."""
    on_gpu = device.type == "cuda"
    return {
        "device": device.type,
        "card": torch.cuda.get_device_name(device) if on_gpu else None,
        "cards": torch.cuda.device_count() if on_gpu else 0,
        "driver": (driver_version() or UNKNOWN) if on_gpu else None,
        "processor": processor(),
        "cpus": usable_cpus(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"),
        "tiny": tiny,
        "parts": parts,
    }


def _output(*command: str) -> str:
    """The first line that a program prints."""
    if not shutil.which(command[0]):
        return UNKNOWN
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return lines[0].strip() if lines else UNKNOWN
