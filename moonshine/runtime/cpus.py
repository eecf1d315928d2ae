"""The CPUs: what they are, and how many are usable."""

import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from moonshine.runtime.control_groups import control_groups

INT8_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "asimddp")
"""Instruction sets with which int8 is faster than float32, and sums of products do not saturate."""
INSTRUCTION_SETS = ("avx2", "fma", "avx512f", *INT8_DOT_PRODUCTS, "amx_bf16", "amx_int8", "asimd", "i8mm", "sve")
"""Those that decide how fast convolutions are, as Linux names them."""


def processor() -> str:
    """The CPU's name; "unknown" if the system does not tell."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"


def instruction_sets() -> list[str]:
    """Those of INSTRUCTION_SETS that the CPU has; none if the system does not tell."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            lines = (line.split(":", 1)[1] for line in file if line.startswith(("flags", "Features")))
            found = set(next(lines, "").split())
    except OSError:
        return []
    return [name for name in INSTRUCTION_SETS if name in found]


def governor() -> str | None:
    """What sets the frequency of the first CPU, such as "performance"; None if the system does not tell."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip() or None
    except OSError:
        return None


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
