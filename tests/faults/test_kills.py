"""kill -9 of a command in every phase and at random instants, until it is done: the golden bytes, little lost."""

import random
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.faults.experiment import DISTIL, Experiment, Injections, artefact_hashes
from tests.faults.forked import Command, command

STEPS = 3
"""Of an epoch of the tiny experiment."""
PHASES = ("start", "training", "saving", "evaluation", "publishing")


def first_step(output: str) -> int | None:
    """The step that a start went on from; None where it was killed before it said so."""
    if resumed := re.search(r"resuming from epoch (\d+), batch (\d+)", output):
        return (int(resumed[1]) - 1) * STEPS + int(resumed[2])
    return 0 if "global batch size" in output else None


def kill_until_done(folder: Path, kills: Iterable[tuple[str, float]], injected: Injections) -> list[str]:
    """Start the command, kill it so many seconds after it entered a phase, and so on; after the last let it end.

    Returns the phases in which it was killed.
    """
    hit: list[str] = []
    done = 0
    for wanted, delay in kills:
        running = Command(folder, DISTIL, pause=wanted)
        if not running.wait_until(Command.paused):
            result = running.finish()
            assert result.code == 0, result.output
            return hit
        if delay:
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
    result = command(folder, *DISTIL)
    assert result.code == 0, result.output
    return hit


def test_kills_in_every_phase_end_with_the_golden_bytes(
    experiment: Experiment, with_teacher: Path, injected: Injections
) -> None:
    hit = kill_until_done(with_teacher, [(phase, 0.0) for phase in PHASES], injected)
    assert tuple(hit) == PHASES
    assert len(artefact_hashes(with_teacher)) == 3
    assert experiment.unharmed(with_teacher)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(30))
def test_random_kills_end_with_the_golden_bytes(
    attempt: int, experiment: Experiment, with_teacher: Path, injected: Injections
) -> None:
    chance = random.Random(attempt)
    delays = [chance.choice([0.0, chance.uniform(0, 0.05), chance.uniform(0, 0.3)]) for _ in range(8)]
    kills = [(chance.choice([*PHASES, "training"]), delay) for delay in delays]
    assert kill_until_done(with_teacher, kills, injected)
    assert len(artefact_hashes(with_teacher)) == 3
    assert experiment.unharmed(with_teacher)
