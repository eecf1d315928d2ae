"""Where and how a network was trained."""

import os
import platform
import time
from typing import Any

import torch

from moonshine.errors import MachineError
from moonshine.project.artefacts import RUNTIME_LOCK
from moonshine.project.git import git
from moonshine.project.graph import PACKAGE
from moonshine.runtime.cpus import processor
from moonshine.runtime.files import sha256
from moonshine.runtime.progress import say

PACKAGES = PACKAGE.parent / RUNTIME_LOCK


def provenance(device: torch.device, started: float) -> dict[str, Any]:
    """When, where and by which code; unlike the network's bytes, this differs from run to run.

    What decides the bytes (torch, threads, ...) is in the run's identity, next to it. `packages` is the
    sha256 of the package lock file, which container images carry as a label.

    `started` is a `time.time()` value.
    """
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.time() - started, 1),
        "commit": _commit(),
        "image": os.environ.get("MOONSHINE_IMAGE"),
        "packages": sha256(PACKAGES) if PACKAGES.exists() else None,
        "machine": {
            "device": str(device),
            "processor": processor(),
            "accelerator": accelerator,
            "python": platform.python_version(),
        },
    }


def processor_of(device: torch.device) -> str:
    """The name of the GPU, with the version of cuDNN, or of the CPU: another one rounds differently."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} (cuDNN {torch.backends.cudnn.version()})"
    return processor()


def _commit() -> str | None:
    """The checkout's revision, with `-dirty` if files differ from it; None outside git, or if git refuses."""
    try:
        described = git("describe", "--always", "--dirty", "--abbrev=40")
    except MachineError as error:
        say(f"warning: the record will not name the commit: {error}")
        return None
    return described.decode().strip() if described else None
