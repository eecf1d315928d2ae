"""A run whose loss, gradient or weights stop being finite stops before it is saved, and says where it was."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.separate_project import write_params
from moonshine.runs import live
from moonshine.training import loop
from moonshine.training.objective import CrossEntropy
from tests.faults.experiment import TRAIN, Experiment, Injections, artefact_hashes, tiny_params
from tests.faults.forked import command


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"lr": 1e30}, "not finite in epoch 1"),
        ({"lr": 1e38, "batch_size": 2000, "epochs": 1, "lr_steps": []}, "not finite in epoch 1, after step 0"),
        ({"lr": 0.05, "lr_steps": [], "weight_decay": 1e37}, "not finite in epoch 1"),
    ],
    ids=["in a step", "by the last update", "by weight decay"],
)
def test_a_diverged_run_stops_with_code_7(
    changes: dict[str, Any], what: str, experiment: Experiment, tmp_path: Path, injected: Injections
) -> None:
    params = tiny_params()
    params["recipe"].update(changes)
    folder = experiment.copy(tmp_path / "run", "runs", "models", "results", params=params)
    with injected("divergence"):
        for _ in range(2):  # the second start goes on from the last good checkpoint, and says the same
            result = command(folder, *TRAIN)
            assert result.code == 7, result.output
            error = result.output.splitlines()[-1]
            for part in ("error: train/teacher seed 0: ", what, "step", f"lr {params['recipe']['lr']:g}"):
                assert part in error
            assert "loss " in error
            assert "cross_entropy " in error
            assert "Traceback" not in result.output
            assert artefact_hashes(folder) == {}
            for path in folder.glob("runs/**/step-*.pt"):
                network = torch.load(path, weights_only=True)["state"]["network"]
                assert all(torch.isfinite(tensor).all() for tensor in network.values())


def test_a_cured_run_does_not_go_on_from_the_diverged_one(experiment: Experiment, tmp_path: Path) -> None:
    params = tiny_params()
    params["recipe"]["lr"] = 1e30
    folder = experiment.copy(tmp_path / "run", "runs", "models", "results", params=params)
    assert command(folder, *TRAIN).code == 7
    experiment_params = tiny_params()
    folder = Experiment(folder, {}).copy(tmp_path / "cured", params=experiment_params)
    result = command(folder, *TRAIN)
    assert result.code == 0
    assert "an older run is not resumed because it differs in recipe.lr: 1e+30 -> 0.05" in result.output
    assert experiment.unharmed(folder)


def look_as_on_a_gpu() -> None:
    """At every step for the heartbeat, but once in a while for a loss that is not finite."""
    live.SECONDS_BETWEEN_HEARTBEATS = 0.0
    loop.STEPS_BETWEEN_CHECKS["cpu"] = 50


def test_a_loss_that_the_heartbeat_sees_first_diverges_too(untrained: Path) -> None:
    params = tiny_params()
    params["recipe"]["lr"] = 1e30
    del params["machine"]["checkpoint_steps"]
    write_params(untrained, params)
    result = command(untrained, *TRAIN, prepare=look_as_on_a_gpu)
    assert result.code == 7, result.output
    (path,) = untrained.glob("runs/toy/train/teacher/seed0/*/progress.json")
    assert "diverged" in json.loads(path.read_text())


def test_weights_that_a_save_during_validation_finds_infinite_diverge_too(untrained: Path) -> None:
    """They become so in the epoch's last step, whose own loss is finite."""
    params = tiny_params()
    count = json.loads((untrained / "data/digits/manifest.json").read_text())["splits"]["train"]["count"]
    params["recipe"].update(batch_size=count, epochs=1, lr_steps=[], lr=1e39)
    params["machine"] = {"device": "cpu", "checkpoint_seconds": 1e-6}
    write_params(untrained, params)
    result = command(untrained, *TRAIN)
    assert result.code == 7, result.output
    assert "not finite in epoch 1" in result.output
    assert "Traceback" not in result.output


class Overflowing:
    """In place of the loss: one that is infinite in the steps `which`."""

    def __init__(self, which: range):
        self._which, self._step, self._call = which, 0, CrossEntropy.__call__

    def install(self) -> None:
        def call(objective: CrossEntropy, *arguments: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
            loss, _ = self._call(objective, *arguments)
            loss = loss * float("inf") if self._step in self._which else loss
            self._step += 1
            return loss, [loss]

        CrossEntropy.__call__ = call  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("which", "code"), [(range(3, 4), 0), (range(3, 6), 7)], ids=["one batch", "a whole epoch's batches"]
)
def test_a_batch_that_overflows_in_float16_is_skipped(which: range, code: int, untrained: Path) -> None:
    params = tiny_params()
    params["recipe"]["precision"] = "float16"
    del params["machine"]["checkpoint_steps"]
    write_params(untrained, params)
    result = command(untrained, *TRAIN, prepare=Overflowing(which).install)
    assert result.code == code, result.output
    if code:
        assert "every step's loss not finite in epoch 2, after step 2" in result.output
    else:
        (path,) = untrained.glob("runs/toy/train/teacher/seed0/*/final.json")
        first, second = json.loads(path.read_text())["history"]
        assert 0 < second["loss"] < 2 * first["loss"]
