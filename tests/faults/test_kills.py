"""Random kill -9 of a command at random instants, again and again until it is done: the golden bytes, little lost."""

import random
import re
import signal
import time
from pathlib import Path

import pytest

from faults.experiment import DISTIL, Experiment, Injections, artefacts
from faults.forked import Command

STEPS = 3
"""Of an epoch of the tiny experiment."""


def first_step(output: str) -> int | None:
    """The step that a start went on from; None where it was killed before it said so."""
    if resumed := re.search(r"going on from epoch (\d+), batch (\d+)", output):
        return (int(resumed[1]) - 1) * STEPS + int(resumed[2])
    return 0 if "global batch size" in output else None


def kill_until_done(folder: Path, chance: random.Random, injected: Injections, kills: int) -> list[str]:
    """Start the command, kill it at a random instant, and so on; after `kills` kills let it end. Returns the phases."""
    hit: list[str] = []
    done = 0
    while True:
        wanted = chance.choice(["start", "training", "training", "saving", "evaluation", "publishing"])
        running = Command(folder, DISTIL, pause=wanted if len(hit) < kills else None)
        if not running.wait_until(Command.paused):
            result = running.finish()
            assert result.code == 0, result.output
            return hit
        if delay := chance.choice([0.0, chance.uniform(0, 0.05), chance.uniform(0, 0.3)]):
            running.go_on()
            time.sleep(delay)
        with injected("kill -9 of a command at a random instant") as case:
            running.kill(signal.SIGKILL)
            result = running.finish()
            assert result.code in (0, -signal.SIGKILL), result.output
            if (first := first_step(result.output)) is not None:
                case.lost = done - first
                assert case.lost <= 1, "checkpoint_steps is 1"
                done = first + result.steps
        injected.add(f"of these in the phase: {result.phase}")
        hit.append(result.phase)
        if result.code == 0:
            return hit


@pytest.mark.parametrize("attempt", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 30))])
def test_random_kills_end_with_the_golden_bytes(
    attempt: int, experiment: Experiment, with_teacher: Path, injected: Injections
) -> None:
    hit = kill_until_done(with_teacher, random.Random(attempt), injected, kills=8)
    assert hit
    assert len(artefacts(with_teacher)) == 3
    assert experiment.unharmed(with_teacher)


@pytest.mark.slow
def test_the_kills_landed_in_every_phase(injected: Injections) -> None:
    """Else they might all have hit the start of a process; runs after the kills."""
    for phase in ("start", "training", "saving", "evaluation", "publishing"):
        assert injected.counts[f"of these in the phase: {phase}"]["injected"] > 0, injected.counts
