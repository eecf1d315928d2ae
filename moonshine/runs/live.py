"""How far along a run is, for people who watch it: a curve that grows by one line per epoch, and a heartbeat.

Both are in the run's folder. `moonshine status` reads them, and plotting tools may. Nothing is ever resumed from them,
so a failed write does not affect the training.
"""

import contextlib
import math
import os
import socket
import time
from pathlib import Path
from typing import Any

from moonshine.errors import MoonshineError
from moonshine.runtime import distributed
from moonshine.runtime.files import write_json, write_text

CURVE, HEARTBEAT = "curve.csv", "progress.json"
SECONDS_BETWEEN_HEARTBEATS = 10.0


class LiveRun:
    """What a run reports about itself during training; of several processes, only the first does."""

    def __init__(self, folder: Path, steps: int, first_step: int):
        """`steps` is the number of optimiser steps of the whole run, `first_step` how many were done before."""
        self._folder, self._steps, self._first = folder, steps, first_step
        self._start = time.monotonic()
        self._last = float("-inf")

    @property
    def due(self) -> bool:
        """Whether the next heartbeat is due; fetching sums from the device at every step would slow training down."""
        return distributed.IS_MAIN and time.monotonic() - self._last >= SECONDS_BETWEEN_HEARTBEATS

    def beat(self, epoch: int, step: int, training: dict[str, float] | None = None, **noted: Any) -> None:
        """Write the heartbeat: `step` steps are done, and epoch `epoch` is in progress; `noted` is shown with it.

        So are the `training` means; those not finite, if not noticed before, as null, because JSON has no such numbers.
        """
        if not distributed.IS_MAIN:
            return
        self._last = time.monotonic()
        rate = (step - self._first) / max(self._last - self._start, 1e-9)
        heartbeat = {
            "epoch": epoch,
            "step": step,
            "steps": self._steps,
            "seconds_left": round((self._steps - step) / rate) if rate else None,
            "written": round(time.time(), 1),
            "process": os.getpid(),
            "host": socket.gethostname(),
            "training": None if training is None else _without_infinities(training),
            **noted,
        }
        with contextlib.suppress(MoonshineError):
            write_json(self._folder / HEARTBEAT, heartbeat, attempts=1)

    def finish_epoch(self, curve: str) -> None:
        if not distributed.IS_MAIN:
            return
        with contextlib.suppress(MoonshineError):
            write_text(self._folder / CURVE, curve, attempts=1)


def _without_infinities(means: dict[str, float]) -> dict[str, float | None]:
    return {name: mean if math.isfinite(mean) else None for name, mean in means.items()}
