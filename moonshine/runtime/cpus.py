"""The CPUs that are to be had."""

import os


def usable_cpus() -> int:
    """CPUs that this process may run on; an engine or a container may leave it fewer than the machine has."""
    return len(os.sched_getaffinity(0))
