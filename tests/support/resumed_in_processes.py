"""Started by torchrun: six steps of trainings, and the same with a new start from a checkpoint in their midst.

Argument: a folder for the SHA-256 of what each process ended with, `whole` and `resumed`.
"""

import hashlib
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from moonshine.models.architecture import architecture_of
from moonshine.params import Params
from moonshine.project.rows import Row
from moonshine.runtime import distributed
from moonshine.training.objective import CrossEntropy
from moonshine.training.replicas import joined
from moonshine.training.state import TrainingState
from tests.support.project import toy_params

STEPS, STOP_AFTER = 6, 3
RECIPES: tuple[dict[str, Any], ...] = (
    {},
    {
        "schedule": "cosine",
        "optimizer": "adamw",
        "norm_weight_decay": 0.0,
        "clip_grad_norm": 0.1,
        "ema_decay": 0.9,
    },
)


def new_state(recipe: dict[str, Any]) -> TrainingState:
    params = Params.model_validate(toy_params())
    architecture = architecture_of(params.networks["teacher"], 10, 1)
    settings = params.recipe.model_copy(update=recipe)
    row, device = Row.parse("train/teacher"), torch.device("cpu")
    return TrainingState(row, architecture, CrossEntropy(), settings, 0, device, steps_per_epoch=STEPS)


def take_steps(state: TrainingState, numbers: range) -> TrainingState:
    for number in numbers:
        generator = torch.Generator().manual_seed(100 * number + distributed.RANK)
        state.step(torch.randn(8, 1, 12, 12, generator=generator), torch.randint(10, (8,), generator=generator), None)
    return state


def reloaded(state: TrainingState, recipe: dict[str, Any]) -> TrainingState:
    buffer = io.BytesIO()
    torch.save(state.checkpoint(), buffer)
    fresh = new_state(recipe)
    fresh.load_checkpoint(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    return fresh


def digest(states: Iterable[TrainingState]) -> str:
    """Of the weights, and their averages; batch norm's statistics are each process's own."""
    networks = [network for state in states for network in (state.network, state.result)]
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return hashlib.sha256(b"".join(p.detach().contiguous().numpy().tobytes() for p in parameters)).hexdigest()


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with joined(torch.device("cpu")):
        whole = [take_steps(new_state(recipe), range(STEPS)) for recipe in RECIPES]
        stopped = [take_steps(new_state(recipe), range(STOP_AFTER)) for recipe in RECIPES]
        resumed = [
            take_steps(reloaded(state, recipe), range(STOP_AFTER, STEPS)) for state, recipe in zip(stopped, RECIPES)
        ]
        for name, states in (("whole", whole), ("resumed", resumed)):
            (folder / f"{name}-{distributed.RANK}").write_text(digest(states))


if __name__ == "__main__":
    main()
