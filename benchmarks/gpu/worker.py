"""Tasks that need a process of their own: `python -m benchmarks.gpu.worker TASK ARGUMENTS --device DEVICE [--tiny]`.

Each prints its result as a line of JSON.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.gpu.machine import Context, usable_device
from benchmarks.gpu.report import Report
from benchmarks.separate_project import environment

SECONDS = 600
"""For a task; one that takes longer counts as failed."""


class Worker:
    """A process that runs one task."""

    def __init__(self, command: list[str], variables: dict[str, str]):
        self._task = " ".join(command[3:])
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**variables)
        )

    def result(self) -> dict[str, Any]:
        """What the task found; RuntimeError with the last line that it printed if it failed."""
        try:
            output, errors = self._process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise RuntimeError(f"{self._task}: not done after {SECONDS} s") from None
        if self._process.returncode:
            raise RuntimeError(f"{self._task}: exit {self._process.returncode}: {(errors.splitlines() or [''])[-1]}")
        return json.loads(output.splitlines()[-1])


def start_worker(
    context: Context, task: str, *arguments: str, python: str = sys.executable, **variables: str
) -> Worker:
    """Start a task on the context's device, with these environment variables."""
    tiny = ["--tiny"] if context.tiny else []
    command = [python, "-m", "benchmarks.gpu.worker", task, *arguments, "--device", context.device.type, *tiny]
    return Worker(command, variables)


def compiled_digest(context: Context, name: str) -> dict[str, Any]:
    """The state after three compiled steps, and the losses of compiled and eager steps."""
    from benchmarks.gpu.subjects import BFLOAT16, checked_batches, digest, learn, make_state, make_teacher

    losses, digests = {}, {}
    for how, is_compiled in (("compiled", True), ("eager", False)):
        teacher = make_teacher(name, context.device, BFLOAT16, compiled=is_compiled)
        state = make_state(name, context.device, BFLOAT16, compiled=is_compiled)
        learn(state, teacher, checked_batches(context, 3))
        losses[how], digests[how] = state.training_means()["loss"], digest(state)
    return {"digest": digests["compiled"], **losses}


class _WorldOfOne(int):
    """A world of one process that takes the code path of several: everywhere else the number 1."""

    def __eq__(self, other: object) -> bool:
        return False if other == 1 else int(self) == other

    def __gt__(self, other: int) -> bool:
        return True if other == 1 else int(self) > other

    __hash__ = int.__hash__


def one_of_several(context: Context) -> dict[str, Any]:
    """The state after four steps by one process, alone and as a group of one that exchanges all that several would."""
    from moonshine.training.replicas import joined

    alone = _digest_of_a_share(context)
    with _world_of_one(), joined(context.device):
        in_group = _digest_of_a_share(context)
    return {"alone": alone, "in_group": in_group}


@contextmanager
def _world_of_one() -> Iterator[None]:
    from moonshine.runtime import distributed

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "1", "RANK": "0"}
    with patch.dict(os.environ, variables), patch.object(distributed, "WORLD_SIZE", _WorldOfOne(1)):
        yield


def _digest_of_a_share(context: Context) -> str:
    from benchmarks.gpu.subjects import BFLOAT16, checked_batches, digest, make_state, make_teacher
    from moonshine.data.shares import weight_of_share
    from moonshine.runtime import distributed
    from moonshine.training.replicas import share_statistics

    state = make_state("resnet34-sep", context.device, BFLOAT16)
    teacher = make_teacher("resnet18", context.device, BFLOAT16)
    for images, labels in checked_batches(context, 4):
        distributed.wait_for_all()
        state.step(images, labels, teacher(images), weight_of_share(len(labels), len(labels)))
    share_statistics(state.network)
    state.check()
    state.check_weights()
    return digest(state)


def torchdistill_step(context: Context, name: str, kind: str) -> dict[str, Any]:
    """Seconds of a step by torchdistill, which only the Python that starts this has."""
    from benchmarks.gpu.speeds import time_torchdistill

    return time_torchdistill(context, name, kind)


def our_step(context: Context, name: str, kind: str) -> dict[str, Any]:
    """Seconds of a step under the environment variables of this process."""
    from benchmarks.gpu.speeds import time_our_step

    return time_our_step(context, name, kind)


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "compiled_digest": compiled_digest,
    "one_of_several": one_of_several,
    "torchdistill_step": torchdistill_step,
    "our_step": our_step,
}


def main() -> None:
    from moonshine.models.arithmetic import make_deterministic

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.worker", description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    make_deterministic(1)
    with tempfile.TemporaryDirectory() as folder:
        report = Report(Path(folder) / "worker.jsonl", {})
        context = Context(usable_device(options.device), options.tiny, report)
        found = TASKS[options.task](context, *options.arguments)
        report.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
