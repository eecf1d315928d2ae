"""A stop on request saves at the next step and says how to go on; nothing that arrives during it does harm."""

import signal
from pathlib import Path

import pytest

from tests.faults.experiment import DISTIL, TRAIN, Experiment, Injections, artefact_hashes
from tests.faults.forked import command, start

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
PHASES = ("training", "saving", "evaluation")
SAMPLE = set(zip(STOPS, PHASES))


@pytest.mark.parametrize(
    ("stop", "phase"),
    [
        pytest.param(stop, phase, marks=() if (stop, phase) in SAMPLE else pytest.mark.slow, id=f"{stop.name}-{phase}")
        for stop in STOPS
        for phase in PHASES
    ],
)
def test_a_signal_saves_and_the_same_command_goes_on(
    stop: signal.Signals, phase: str, experiment: Experiment, with_teacher: Path, injected: Injections
) -> None:
    with injected("SIGTERM, SIGINT, SIGUSR1 in training, saving, evaluation"):
        running = start(with_teacher, *DISTIL, pause=phase)
        running.kill(stop)
        running.go_on()
        result = running.finish()
        assert result.code == 128 + stop
        assert f"stopped by {stop.name}: a checkpoint is saved, the same command resumes from it" in result.output
        result = command(with_teacher, *DISTIL)
        assert result.code == 0
        assert "resuming from epoch" in result.output
        assert len(artefact_hashes(with_teacher)) == 3
        assert experiment.unharmed(with_teacher)


def test_more_signals_change_nothing(experiment: Experiment, untrained: Path, injected: Injections) -> None:
    with injected("further signals while one is obeyed"):
        running = start(untrained, *TRAIN, pause="saving")
        for stop in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            running.kill(stop)
        running.go_on()
        assert running.finish().code in {128 + stop for stop in STOPS}
        result = command(untrained, *TRAIN)
        assert "resuming from epoch" in result.output
        assert experiment.unharmed(untrained)


def test_a_signal_in_the_last_moment_does_not_undo_the_work(experiment: Experiment, untrained: Path) -> None:
    running = start(untrained, *TRAIN, pause="publishing")
    running.kill(signal.SIGTERM)
    running.go_on()
    assert running.finish().code == 0
    assert experiment.unharmed(untrained)


def work(folder: Path) -> set[Path]:
    """All files but locks and logs."""
    return {path for path in folder.rglob("*") if path.is_file() and path.name != "lock" and path.suffix != ".log"}


@pytest.mark.parametrize("stop", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_prepare_and_evaluate_stop_too_and_leave_nothing_half_made(
    stop: signal.Signals, experiment: Experiment, tmp_path: Path, injected: Injections
) -> None:
    folder = experiment.copy(tmp_path / "run", "data", "prepare", "results", "logs")
    with injected("SIGTERM, SIGUSR1 in prepare and in evaluate"):
        for arguments, phase in ((("prepare",), "preparing"), (("evaluate", "train/teacher"), "evaluation")):
            before = work(folder)
            running = start(folder, *arguments, pause=phase)
            running.kill(stop)
            running.go_on()
            result = running.finish()
            assert result.code == 128 + stop
            assert f"stopped by {stop.name}" in result.output
            assert work(folder) == before
            assert command(folder, *arguments).code == 0
        assert artefact_hashes(folder)["results/toy/metrics/train/teacher.json"] in experiment.golden.values()
        assert (folder / "data/digits/manifest.json").read_bytes() == (
            experiment.folder / "data/digits/manifest.json"
        ).read_bytes()
