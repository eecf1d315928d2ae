"""Started by torchrun: six steps of a training, and the same with a new start from a checkpoint in their midst.

Argument: a folder for the SHA-256 of what each process ended with, `whole` and `resumed`.
"""

import hashlib
import io
import sys
from pathlib import Path

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


def new_state() -> TrainingState:
    params = Params.model_validate(toy_params())
    architecture = architecture_of(params.networks["teacher"], 10, 1)
    return TrainingState(
        Row.parse("train/teacher"), architecture, CrossEntropy(), params.recipe, 0, torch.device("cpu")
    )


def take_steps(state: TrainingState, numbers: range) -> TrainingState:
    for number in numbers:
        generator = torch.Generator().manual_seed(100 * number + distributed.RANK)
        state.step(torch.randn(8, 1, 12, 12, generator=generator), torch.randint(10, (8,), generator=generator), None)
    return state


def reloaded(state: TrainingState) -> TrainingState:
    buffer = io.BytesIO()
    torch.save(state.checkpoint(), buffer)
    fresh = new_state()
    fresh.load_checkpoint(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    return fresh


def digest(state: TrainingState) -> str:
    return hashlib.sha256(
        b"".join(p.detach().contiguous().numpy().tobytes() for p in state.network.parameters())
    ).hexdigest()


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with joined(torch.device("cpu")):
        whole = take_steps(new_state(), range(STEPS))
        stopped = take_steps(new_state(), range(STOP_AFTER))
        resumed = take_steps(reloaded(stopped), range(STOP_AFTER, STEPS))
        for name, state in (("whole", whole), ("resumed", resumed)):
            (folder / f"{name}-{distributed.RANK}").write_text(digest(state))


if __name__ == "__main__":
    main()
