"""What can be known of NVIDIA's driver without torch, which the container launcher does not have."""

import re
from pathlib import Path

CONTROL = Path("/dev/nvidiactl")
"""Exists if the driver of a GPU is loaded; in a container, if the GPU was passed on to it."""
VERSION = Path("/proc/driver/nvidia/version")
OLDEST_DRIVER = {"12": 525, "13": 580}
"""Major version of CUDA -> oldest branch of the driver that runs it (NVIDIA, "CUDA Compatibility", table 1)."""


def driver_version() -> str | None:
    """The version of the loaded driver, such as 580.65.06; None if it cannot be read."""
    try:
        found = re.search(r"NVRM version:.*?\s(\d+(?:\.\d+)+)\s", VERSION.read_text(errors="replace"))
    except OSError:
        return None
    return found[1] if found else None
