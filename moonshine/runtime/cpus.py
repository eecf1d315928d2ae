"""The CPUs: what they are, and how many are usable."""

import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from moonshine.runtime.control_groups import control_groups


def processor() -> str:
    """The CPU's name; "unknown" if the system does not tell."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"


def usable_cpus() -> int:
    """CPUs that this process may use; an engine, a cluster or a container may allow it fewer than the machine has.

    They are those that it may run on, or fewer if a control group limits its CPU time (`docker run --cpus`), rounded
    up.
    """
    return min([len(os.sched_getaffinity(0)), *_quotas()])


def _quotas() -> Iterator[int]:
    for version, group in control_groups("cpu"):
        with suppress(OSError, ValueError):  # no such group in this container, or no limit: "max"
            quota, period = map(int, _quota_and_period(version, group))
            if quota > 0:  # -1 is version 1's "max"
                yield -(-quota // period)


def _quota_and_period(version: int, group: Path) -> list[str]:
    """Microseconds of CPU time, and the period in which the group may use as many."""
    if version == 2:
        return (group / "cpu.max").read_text().split()
    return [(group / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
