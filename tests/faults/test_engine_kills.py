"""Random kills of a running experiment under each engine: of a stage, of the engine, of both; then the same command.

What was killed when is drawn anew for every kill; in which phase it hit the stage is read from the stage's own note.
"""

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faults import phases
from faults.experiment import STAGES, Injections, artefacts, tiny_params
from faults.forked import command
from support import ROOT, copy_project, environment, moonshine, stages_in, write_params

ENGINES = {"snakemake": ("snakemake", "--cores", "2"), "dvc": ("dvc", "repro")}
KILLS = int(os.environ.get("FAULTS_KILLS", "10"))
"""Of each run; `make faults` makes five runs under each engine."""
TARGETS = ("stage", "stage", "stage politely", "everything", "engine", "engine and stage")

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
    return artefacts(folder)


@dataclass
class Engine:
    """An engine at work on a project, in a session of its own."""

    command: tuple[str, ...]
    project: Path
    phases: Path

    def start(self) -> None:
        path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/faults/recorder")))
        variables = environment(PYTHONPATH=path, PHASES_FOLDER=str(self.phases))
        self.output = (self.project.parent / "output").open("w")
        self.process = subprocess.Popen(
            self.command,
            cwd=self.project,
            env=variables,
            start_new_session=True,
            stdout=self.output,
            stderr=self.output,
        )

    def phase(self, stage: int) -> str:
        return phases.read(self.phases / str(stage))

    def wait_for(self, wanted: str | None, seconds: float) -> int | None:
        """A stage in the wanted phase, or any after the time; None when the engine ends first."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            for stage in stages_in(self.project):
                if self.phase(stage) == wanted or time.monotonic() > end:
                    return stage
            time.sleep(0.002)
        return None

    def kill(self, target: str, stage: int) -> None:
        """One fault; then wait until nothing of this start is left."""
        try:
            if target == "everything":
                os.killpg(self.process.pid, signal.SIGKILL)
            if target.startswith("engine"):
                self.process.kill()
            if target.startswith("stage") or target == "engine and stage":
                os.kill(stage, signal.SIGTERM if target == "stage politely" else signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has just ended
        self.process.wait(900)
        end = time.monotonic() + 900
        while stages_in(self.project):  # what outlives its engine works on; its lock would send a second start away
            assert time.monotonic() < end, "a stage hangs"
            time.sleep(0.05)

    def run_to_the_end(self) -> str:
        self.start()
        self.process.wait(900)
        self.output.close()
        return (self.project.parent / "output").read_text()


@pytest.mark.parametrize("attempt", range(5))
@pytest.mark.parametrize("name", ENGINES)
def test_random_kills(name: str, attempt: int, golden: dict[str, str], tmp_path: Path, injected: Injections) -> None:
    chance = random.Random(f"{name} {attempt}")
    project = copy_project(tmp_path / "project", longer_params())
    (tmp_path / "phases").mkdir()
    engine = Engine(ENGINES[name], project, tmp_path / "phases")
    promise = f"random kills under {name}"
    kills = 0
    while kills < KILLS:
        engine.start()
        wanted = chance.choice([None, "training", "training", "saving", "evaluation", "publishing"])
        stage = engine.wait_for(wanted, seconds=chance.uniform(0, 5) if wanted is None else 20)
        if stage is None:
            assert engine.process.returncode == 0, (tmp_path / "output").read_text()
            break  # finished before its kills were used up
        time.sleep(chance.choice([0, 0, chance.uniform(0, 0.2)]))
        with injected(promise):
            engine.kill(chance.choice(TARGETS), stage)
            assert all(golden.get(path, digest) == digest for path, digest in artefacts(project).items())
            if engine.process.returncode == -signal.SIGKILL:
                moonshine("unlock", cwd=project)
        injected.add(f"under an engine, in the phase: {engine.phase(stage)}")
        kills += 1
    output = engine.run_to_the_end()
    assert engine.process.returncode == 0, output
    assert golden.items() <= artefacts(project).items()


def test_the_kills_landed_everywhere(injected: Injections) -> None:
    """Runs after the kills; without it they might all have hit the start of a process."""
    for phase in ("start", "training", "saving", "evaluation"):
        assert injected.counts[f"under an engine, in the phase: {phase}"]["injected"] > 0, injected.counts
