"""A run whose loss, gradient or weights stop being finite stops before it is saved, and says where it was."""

from pathlib import Path
from typing import Any

import pytest
import torch

from faults.experiment import TRAIN, Experiment, Injections, artefacts, tiny_params
from faults.forked import command


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
            assert artefacts(folder) == {}
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
    assert "an older run is not resumed, for it differs in recipe.lr: 1e+30 -> 0.05" in result.output
    assert experiment.unharmed(folder)
