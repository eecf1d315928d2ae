"""Kills of a running experiment under each engine: of a stage, of the engine, of both; then the same command.

In which phase a kill hit the stage is read from the stage's own note.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import write_params
from tests.faults import phases
from tests.faults.experiment import STAGES, Injections, artefact_hashes, tiny_params
from tests.faults.forked import command
from tests.support.project import copy_project, is_stopped, pausing, run_moonshine, stages_in

ENGINES = {"snakemake": ("snakemake", "--cores", "2"), "dvc": ("dvc", "repro")}
KILLS = int(os.environ.get("FAULTS_KILLS", "10"))
"""Of each run; `make faults` makes five runs under each engine."""
PHASES = ("start", "training", "saving", "evaluation")
TARGETS = ("engine", "stage", "stage", "stage politely", "everything", "engine and stage")
"""The first leaves the stage alone, which then comes to its end."""

pytestmark = pytest.mark.slow


def longer_params() -> dict[str, Any]:
    params = tiny_params()
    params["recipe"].update(epochs=8, batch_size=150, lr_steps=[5])
    return params


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("longer")
    write_params(folder, longer_params())
    for arguments in STAGES:
        assert command(folder, *arguments).code == 0
    return artefact_hashes(folder)


@dataclass
class Engine:
    """An engine at work on a project, in a session of its own."""

    command: tuple[str, ...]
    project: Path

    def start(self, pause: str = "") -> None:
        """With `pause`, each of its stages stops itself when it enters that phase."""
        self.output = (self.project.parent / "output").open("w")
        self.process = subprocess.Popen(
            self.command,
            cwd=self.project,
            env=pausing(self.project, PAUSE=pause),
            start_new_session=True,
            stdout=self.output,
            stderr=self.output,
        )

    def phase(self, stage: int) -> str:
        return phases.read_phase(self.project.parent / str(stage))

    def wait_for(self, condition: Callable[[int], bool]) -> int | None:
        """A stage that meets the condition; None when the engine ends first."""
        while self.process.poll() is None:
            for stage in stages_in(self.project):
                if condition(stage):
                    return stage
            time.sleep(0.002)
        return None

    def kill(self, target: str, stage: int) -> None:
        """One fault; then wait until nothing of this start is left."""
        with suppress(ProcessLookupError):  # it has just ended
            if target == "everything":
                os.killpg(self.process.pid, signal.SIGKILL)
            if target.startswith("engine"):
                self.process.kill()
            if target.startswith("stage") or target == "engine and stage":
                os.kill(stage, signal.SIGTERM if target == "stage politely" else signal.SIGKILL)
        # what outlives its engine works on; its lock would send a second start away
        while self.process.poll() is None or stages_in(self.project):
            self.go_on()
            time.sleep(0.05)

    def go_on(self) -> None:
        for stage in filter(is_stopped, stages_in(self.project)):
            with suppress(ProcessLookupError):
                os.kill(stage, signal.SIGCONT)

    def run_to_the_end(self) -> str:
        self.start()
        self.process.wait()
        self.output.close()
        return (self.project.parent / "output").read_text()


@pytest.mark.parametrize("attempt", range(5))
@pytest.mark.parametrize("name", ENGINES)
def test_kills_end_with_the_golden_bytes(
    name: str, attempt: int, golden: dict[str, str], tmp_path: Path, injected: Injections
) -> None:
    """First in each phase, then at random instants."""
    chance = random.Random(f"{name} {attempt}")
    engine = Engine(ENGINES[name], copy_project(tmp_path / "project", longer_params()))
    hit: list[str] = []
    while len(hit) < KILLS:
        first = len(hit) < len(PHASES)
        pause = PHASES[len(hit)] if first else chance.choice(["", "", *PHASES, "publishing"])
        engine.start(pause)
        end = time.monotonic() + chance.uniform(0, 5)
        stage = engine.wait_for(is_stopped if pause else lambda _, end=end: time.monotonic() > end)
        if stage is None:
            assert engine.process.returncode == 0, (tmp_path / "output").read_text()
            break  # finished before its kills were used up
        if not first:
            engine.go_on()
            time.sleep(chance.choice([0, 0, chance.uniform(0, 0.2)]))
        with injected(f"random kills under {name}"):
            engine.kill(chance.choice(TARGETS[1:] if first else TARGETS), stage)
            assert all(golden.get(path, digest) == digest for path, digest in artefact_hashes(engine.project).items())
            if engine.process.returncode == -signal.SIGKILL:
                run_moonshine("unlock", cwd=engine.project)
        hit.append(engine.phase(stage))
        injected.add(f"under an engine, in the phase: {hit[-1]}")
    output = engine.run_to_the_end()
    assert engine.process.returncode == 0, output
    assert golden.items() <= artefact_hashes(engine.project).items()
    assert tuple(hit[: len(PHASES)]) == PHASES[:KILLS]
