"""The number of usable CPUs."""

import os


def usable_cpus() -> int:
    """CPUs that this process may run on; an engine or a container may allow it fewer than the machine has."""
    return len(os.sched_getaffinity(0))
