"""Two sides of a comparison, measured in turns: A B A B ... on one machine, so that its noise meets both."""

import json
import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ROUNDS = 7


@dataclass(frozen=True)
class Comparison:
    """Paired rounds of ours and the peer's."""

    ours: list[float]
    peer: list[float]
    """Seconds of each round."""
    memory: float | None = None
    """Our peak memory over the peer's."""

    @property
    def speedups(self) -> list[float]:
        """Peer's time over ours in each pair; above 1, ours is faster."""
        return [peer / ours for ours, peer in zip(self.ours, self.peer)]

    def __str__(self) -> str:
        ratios = sorted(self.speedups)
        return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


class Worker:
    """A process of `benchmarks.worker`."""

    def __init__(self, python: str, module: str, task: str, *arguments: str, threads: int):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        command = [python, "-m", "benchmarks.worker", module, task, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._read()

    def round(self) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended early")
        return json.loads(line)


def compare_workers(ours: Worker, peer: Worker, rounds: int = ROUNDS) -> Comparison:
    """Alternate the rounds of two workers, and end them."""
    pairs = [(ours.round(), peer.round()) for _ in range(rounds)]
    ours.close()
    peer.close()
    last_ours, last_peer = pairs[-1]
    return Comparison(
        [pair[0]["seconds"] for pair in pairs],
        [pair[1]["seconds"] for pair in pairs],
        last_ours["peak_bytes"] / last_peer["peak_bytes"],
    )


def compare_calls(ours: Callable[[], float], peer: Callable[[], float], rounds: int = ROUNDS) -> Comparison:
    """Alternate two functions that return seconds."""
    pairs = [(ours(), peer()) for _ in range(rounds)]
    return Comparison([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def timed(command: Sequence[str], **options: object) -> float:
    """Seconds of a command that succeeds."""
    import time

    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, **options)  # type: ignore[call-overload]
    return time.perf_counter() - start
