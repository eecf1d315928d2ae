"""A training with a warm-up, an average and AdamW that is killed at any instant ends with the same bytes."""

import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checkpoints import committed, edit_newest, stop_at
from tests.faults.experiment import DISTIL, TRAIN, Experiment, Injections, artefact_hashes, tiny_params
from tests.faults.forked import Command, command, start
from tests.faults.phases import stop_after_checkpoint
from tests.faults.test_kills import PHASES, kill_until_done
from tests.support.all_losses import ALL_LOSSES
from tests.training.test_recipe_runs import RICH


def rich_params(**recipe: Any) -> dict[str, Any]:
    """The tiny experiment with every key of a recipe, half of its two epochs a warm-up."""
    params = tiny_params()
    params["recipe"] |= RICH | recipe
    return params


@pytest.fixture(scope="module")
def rich(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """The teacher's stage of the experiment with every key, undisturbed."""
    folder = experiment.copy(
        tmp_path_factory.mktemp("rich") / "whole", "runs", "models", "results", params=rich_params()
    )
    result = command(folder, *TRAIN)
    assert result.code == 0, result.output
    return Experiment(folder, artefact_hashes(folder))


@pytest.fixture
def untrained_rich(rich: Experiment, tmp_path: Path) -> Path:
    return rich.copy(tmp_path / "untrained", "runs", "models", "results")


def finish(folder: Path, rich: Experiment) -> bool:
    """Resume; whether the bytes are those of the undisturbed training."""
    result = command(folder, *TRAIN)
    assert result.code == 0, result.output
    assert "resuming from epoch" in result.output
    return rich.complete(folder)


def test_the_keys_decide_the_bytes(rich: Experiment, experiment: Experiment) -> None:
    assert not experiment.golden.items() & rich.golden.items()


@pytest.mark.parametrize("number", [pytest.param(1, id="in the warm-up"), pytest.param(3, id="at its end")])
def test_a_kill_in_the_warm_up(number: int, untrained_rich: Path, rich: Experiment) -> None:
    stop_at(untrained_rich, number)
    assert finish(untrained_rich, rich)


def test_a_kill_at_the_end_of_an_epoch(untrained_rich: Path, rich: Experiment) -> None:
    running = start(untrained_rich, *TRAIN, pause="end of epoch")
    running.kill(signal.SIGKILL)
    assert running.finish().code == -signal.SIGKILL
    assert committed(untrained_rich)[-1].name == "step-000000003.pt"
    assert finish(untrained_rich, rich)


def test_a_kill_in_the_update_of_the_average(untrained_rich: Path, rich: Experiment) -> None:
    """Of the second step: the weights have moved on, their average has not."""
    stop_at(untrained_rich, 1)
    running = start(untrained_rich, *TRAIN, pause="averaging")
    running.kill(signal.SIGKILL)
    assert running.finish().code == -signal.SIGKILL
    assert committed(untrained_rich)[-1].name == "step-000000001.pt"
    assert finish(untrained_rich, rich)


@pytest.mark.parametrize("piece", ["average", "exp_avg_sq", "step"])
def test_control_without_one_piece_of_the_state_the_bytes_differ(
    piece: str, untrained_rich: Path, rich: Experiment
) -> None:
    stop_at(untrained_rich, 5)

    def lose(state: dict[str, Any]) -> None:
        if piece == "average":
            state["average"] = state["network"]
            return
        for kept in state["optimizer"]["state"].values():
            kept[piece].zero_()

    edit_newest(untrained_rich, lose)
    assert not finish(untrained_rich, rich)


def test_a_checkpoint_without_the_average_does_not_fit(untrained_rich: Path) -> None:
    stop_at(untrained_rich, 2)
    edit_newest(untrained_rich, lambda state: state.pop("average"))
    result = command(untrained_rich, *TRAIN)
    assert result.code == 8
    assert "its checkpoint does not fit" in result.output
    assert "Traceback" not in result.output


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_kill_in_other_precisions(precision: str, experiment: Experiment, tmp_path: Path) -> None:
    """In float16, the first steps overflow here and are skipped, which the learning rate does not wait for."""
    params = rich_params(precision=precision)
    whole, killed = (
        experiment.copy(tmp_path / name, "runs", "models", "results", params=params) for name in ("whole", "killed")
    )
    assert command(whole, *TRAIN).code == 0
    running = Command(killed, TRAIN, prepare=partial(stop_after_checkpoint, 2))
    assert running.wait_until(Command.paused)
    running.kill()
    running.finish()
    assert finish(killed, Experiment(whole, artefact_hashes(whole)))


@pytest.mark.slow
def test_random_kills_of_a_student_with_every_loss_and_key(
    experiment: Experiment, tmp_path: Path, injected: Injections
) -> None:
    params = tiny_params()
    mixing = {"pad": 1, "flip": True, "trivial_augment": True, "cutout": 3, "random_erasing": 0.5}
    recipe = {**RICH, "epochs": 40, "augmentation": {**mixing, "mixup": 0.2, "cutmix": 1.0}}
    losses = {key: settings for key, settings in ALL_LOSSES.items() if key != "dkd"}  # not defined for mixed images
    params["methods"]["at"] = {**losses, "recipe": recipe}
    whole, killed = (
        experiment.copy(tmp_path / name, "runs", "distil", "results", params=params) for name in ("whole", "killed")
    )
    result = command(whole, *DISTIL)
    assert result.code == 0, result.output
    chance = random.Random(0)
    phases = [*(phase for phase in PHASES if phase != "publishing"), "averaging", "end of epoch"]
    kills = [(chance.choice(phases), chance.choice([0.0, chance.uniform(0, 0.1)])) for _ in range(20)]
    assert len(kill_until_done(killed, kills, injected)) == 20
    assert artefact_hashes(killed) == artefact_hashes(whole)
    assert not artefact_hashes(whole).items() & {k: v for k, v in experiment.golden.items() if "distil" in k}.items()
