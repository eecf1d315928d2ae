"""A toy experiment in a folder of its own, whose stages run as commands on the device."""

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.machine import Context, first_visible_gpu
from benchmarks.separate_project import environment, toy_params, write_params

SECONDS = 240
"""For a command; one that takes longer is killed and counts as failed."""
TRAIN = ("train", "teacher", "--seed", "0")
MODEL = "models/toy/train/teacher/seed0.safetensors"
STUDENT = "models/toy/distil/at/student/seed0.safetensors"


class Experiment:
    """The toy experiment in `folder`, with other values of `recipe` and `machine` than its own."""

    def __init__(self, context: Context, folder: Path, recipe: dict[str, Any] | None = None, **machine: Any):
        params = toy_params()
        params["recipe"].update(recipe or {})
        params["machine"] = {"device": context.device.type, **machine}
        params["networks"]["half"] = {**params["networks"]["teacher"], "channels": [4, 4, 4, 8]}
        params["distil"]["networks"] = ["student", "half"]
        self.folder, self._variables = folder, dict[str, str]()
        if context.on_gpu and not params["recipe"].get("processes"):
            self._variables["CUDA_VISIBLE_DEVICES"] = first_visible_gpu()
        folder.mkdir(exist_ok=True)
        write_params(folder, params)

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        """A moonshine command, running."""
        return subprocess.Popen(
            [sys.executable, "-m", "moonshine", *arguments],
            cwd=self.folder,
            env=environment(**{**self._variables, **variables}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Exit code and standard error of a moonshine command."""
        return finish(self.start(*arguments, **variables))

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal to the teacher's training once it has written a checkpoint; its exit code and standard error.

        The exit code is 0 if it ended before.
        """
        before = self._checkpoints()
        training = self.start(*TRAIN)
        end = time.monotonic() + SECONDS
        while training.poll() is None and self._checkpoints() <= before and time.monotonic() < end:
            time.sleep(0.01)
        training.send_signal(number)
        return finish(training)

    def hash(self, path: str) -> str | None:
        """The beginning of a file's sha256, or None if there is no such file."""
        file = self.folder / path
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else None

    def _checkpoints(self) -> set[str]:
        return {path.name for path in self.folder.glob("runs/toy/train/teacher/seed0/*/step-*.json")}


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code and standard error; a process that takes too long is killed."""
    try:
        _, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
    return process.returncode, errors


def last_line(errors: str) -> str:
    return (errors.strip().splitlines() or [""])[-1][:160]
