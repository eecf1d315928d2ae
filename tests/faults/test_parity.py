"""A run that was stopped and went on ends with the same bytes, wherever and however often it was stopped.

And the tests can tell: a checkpoint that lacks one piece of the state ends with others.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import write_params
from tests.faults.checkpoints import State, committed, edit_newest, stop_at
from tests.faults.experiment import DISTIL, TRAIN, Experiment, artefact_hashes, tiny_params
from tests.faults.forked import command, start
from tests.support.project import run_moonshine, start_until_paused

POSITIONS = (1, 2, 3, 5, 6, 7)
"""Numbers of the checkpoints of two epochs of three steps; 4 and 8 are the states after a validation."""


def resume(folder: Path, arguments: tuple[str, ...] = TRAIN) -> None:
    result = command(folder, *arguments)
    assert result.code == 0, result.output
    assert "resuming from epoch" in result.output


@pytest.mark.parametrize("number", [pytest.param(n, marks=() if n == 3 else pytest.mark.slow) for n in POSITIONS])
def test_resume_from_any_step(number: int, experiment: Experiment, untrained: Path) -> None:
    """Within epochs (1, 2, 5, 6) and before a validation (3, 7)."""
    stop_at(untrained, number)
    resume(untrained)
    assert len(artefact_hashes(untrained)) == 2
    assert experiment.unharmed(untrained)


def test_resume_from_between_two_epochs(experiment: Experiment, untrained: Path) -> None:
    running = start(untrained, *TRAIN, pause="end of epoch")
    running.kill(signal.SIGTERM)
    running.go_on()
    assert running.finish().code == 128 + signal.SIGTERM
    assert committed(untrained)[-1].name == "step-000000004.pt"
    resume(untrained)
    assert experiment.unharmed(untrained)


@pytest.mark.slow
@pytest.mark.parametrize("number", POSITIONS)
def test_resume_of_a_student_from_any_step(number: int, experiment: Experiment, with_teacher: Path) -> None:
    stop_at(with_teacher, number, DISTIL)
    resume(with_teacher, DISTIL)
    assert experiment.unharmed(with_teacher)


@pytest.mark.slow
def test_resume_after_every_step(experiment: Experiment, untrained: Path) -> None:
    """Six times, and each time with checkpoints asked for in another way."""
    for number in POSITIONS:
        params = tiny_params()
        params["machine"] = {"checkpoint_seconds": 0.001} if number % 2 else {"checkpoint_steps": 1}
        write_params(untrained, params)
        stop_at(untrained, number)
    resume(untrained)
    assert experiment.unharmed(untrained)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_resume_in_other_precisions(precision: str, experiment: Experiment, tmp_path: Path) -> None:
    """In float16 the first steps overflow here, so the loss scale's state matters."""
    params = tiny_params()
    params["recipe"]["precision"] = precision
    whole, stopped = (
        experiment.copy(tmp_path / name, "runs", "results", "distil", "records", params=params)
        for name in ("whole", "stopped")
    )
    assert command(whole, *DISTIL).code == 0
    stop_at(stopped, 2, DISTIL)
    resume(stopped, DISTIL)
    assert len(artefact_hashes(whole)) == 3
    assert artefact_hashes(whole) == artefact_hashes(stopped)


@pytest.mark.slow
def test_resume_of_compiled_networks(experiment: Experiment, tmp_path: Path) -> None:
    """The resumed run meets the smaller batch at the end of an epoch before any other.

    Each command is a process of its own, for the compiler's workers do not outlive a fork.
    """
    params = tiny_params()
    params["recipe"]["compile"] = True
    whole, stopped = (
        experiment.copy(tmp_path / name, "runs", "results", "distil", "records", params=params)
        for name in ("whole", "stopped")
    )
    run_moonshine(*DISTIL, cwd=whole)
    command_ = (sys.executable, "-m", "moonshine", *DISTIL)
    running = start_until_paused(*command_, cwd=stopped, PAUSE_AFTER="2")
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert committed(stopped)[-1].name == "step-000000002.pt"  # the compiler then works on the third batch's size
    assert "resuming from epoch" in run_moonshine(*DISTIL, cwd=stopped).stderr
    assert len(artefact_hashes(whole)) == 3
    assert artefact_hashes(whole) == artefact_hashes(stopped)
    assert any(path.is_file() for path in (whole / ".compiled").rglob("*")), "for containers, which lose theirs"


def lose_momentum(state: State) -> None:
    for buffers in state["optimizer"]["state"].values():
        buffers["momentum_buffer"].zero_()


def lose_statistics(state: State) -> None:
    for name, tensor in state["network"].items():
        if "running" in name:
            tensor.fill_(1.0)


def lose_a_weight(state: State) -> None:
    state["network"]["fc.weight"][0, 0] += 1e-6


LOSSES: dict[str, Callable[[State], Any]] = {
    "a last bit of one weight": lose_a_weight,
    "momentum": lose_momentum,
    "running statistics": lose_statistics,
    "epoch": lambda state: state.update(epoch=1),
    "batch": lambda state: state.update(batch=0),
    "sums": lambda state: state["sums"].zero_(),
    "history": lambda state: state.update(history=[]),
}


@pytest.fixture(scope="module")
def stopped(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped one step into the second epoch."""
    folder = experiment.copy(tmp_path_factory.mktemp("stopped") / "run", "runs", "models", "results")
    stop_at(folder, 5)
    return folder


QUICK = ("momentum", "running statistics", "history")


@pytest.mark.parametrize(
    "loss", [pytest.param(loss, marks=() if loss in QUICK else pytest.mark.slow) for loss in LOSSES]
)
def test_control_without_one_piece_of_the_state_the_bytes_differ(
    loss: str, stopped: Path, experiment: Experiment, tmp_path: Path
) -> None:
    folder = Experiment(stopped, {}).copy(tmp_path / "run")
    edit_newest(folder, LOSSES[loss])
    resume(folder)
    assert not experiment.unharmed(folder)


def test_control_an_edit_of_nothing_changes_nothing(stopped: Path, experiment: Experiment, tmp_path: Path) -> None:
    folder = Experiment(stopped, {}).copy(tmp_path / "run")
    edit_newest(folder, lambda state: None)
    resume(folder)
    assert experiment.unharmed(folder)


@pytest.mark.slow
def test_control_with_another_loss_scale_float16_differs(experiment: Experiment, tmp_path: Path) -> None:
    params = tiny_params()
    params["recipe"]["precision"] = "float16"
    whole, stopped = (
        experiment.copy(tmp_path / name, "runs", "results", "distil", "records", params=params)
        for name in ("whole", "stopped")
    )
    assert command(whole, *DISTIL).code == 0
    stop_at(stopped, 5, DISTIL)
    edit_newest(stopped, lambda state: state["scaler"].update(scale=1.0))
    resume(stopped, DISTIL)
    assert artefact_hashes(whole) != artefact_hashes(stopped)


@pytest.mark.parametrize(
    "key",
    ["optimizer", *(pytest.param(k, marks=pytest.mark.slow) for k in ("network", "scaler", "epoch", "batch", "sums"))],
)
def test_no_piece_of_the_state_is_optional(key: str, stopped: Path, tmp_path: Path) -> None:
    folder = Experiment(stopped, {}).copy(tmp_path / "run")
    edit_newest(folder, lambda state: state.pop(key))
    result = command(folder, *TRAIN)
    assert result.code == 8
    assert "its checkpoint does not fit" in result.output
    assert "Traceback" not in result.output
    assert artefact_hashes(folder) == {}
