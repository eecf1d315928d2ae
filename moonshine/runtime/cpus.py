"""The CPUs: what they are, and how many are usable."""

import os
import platform
from pathlib import Path


def processor() -> str:
    """The CPU's name; "unknown" if the system does not tell."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"


def usable_cpus() -> int:
    """CPUs that this process may run on; an engine or a container may allow it fewer than the machine has."""
    return len(os.sched_getaffinity(0))
