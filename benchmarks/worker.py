"""One side of a comparison: a process that prepares a task once and then runs a round of it for each line it reads."""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

Round = Callable[[], float | None]
"""Does the work of a round; returns its own measure of the seconds, or None to have them measured."""


def main() -> None:
    module, task, *arguments = sys.argv[1:]
    run_round: Round = getattr(importlib.import_module(module), task)(*arguments)
    run_round()  # caches, lazy initialisation
    Path("/proc/self/clear_refs").write_text("5")  # begins the peak anew
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        seconds = run_round() or time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "peak_bytes": _peak_bytes()}), flush=True)


def _peak_bytes() -> int:
    """The largest resident memory since the preparation ended."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
