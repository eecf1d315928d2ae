"""A method with every loss, and one step of a student that learns by it, alone or in the processes of torchrun.

Argument: a folder for what each process computed.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from moonshine.data.shares import share, weight_of_share
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import TeacherOutputs
from moonshine.models.architecture import architecture_of
from moonshine.params import Params
from moonshine.project.rows import Row
from moonshine.runtime import distributed
from moonshine.training.replicas import joined
from moonshine.training.state import TrainingState
from tests.support.project import toy_params

ALL_LOSSES: dict[str, Any] = {
    "beta": 30.0,
    "groups": [1, 2, 3, 4],
    "alpha": 9.0,
    "temperature": 2.0,
    "cross_entropy": 0.5,
    "standardise_logits": True,
    "dist": {"beta": 2.0, "gamma": 2.0, "temperature": 1.0},
    "dkd": {"alpha": 1.0, "beta": 2.0, "temperature": 2.0, "warmup_epochs": 2},
    "ttm": {"weight": 3.0, "exponent": 0.3, "weighted": True},
}
IMAGES = 7
"""Two processes have 4 and 3 of them."""


def one_step() -> dict[str, Any]:
    """The gradients and the losses of a batch, with batch norm in eval mode, where each image counts for itself.

    After the first step, without weight decay, the gradients are what momentum remembers.
    """
    params = Params.model_validate(toy_params())
    architecture = architecture_of(params.networks["student"], 10, 1)
    objective = Distillation(("layer1", "layer2", "layer3", "layer4"), **ALL_LOSSES)
    recipe = params.recipe.model_copy(update={"weight_decay": 0.0})
    state = TrainingState(Row.parse("distil/at/student"), architecture, objective, recipe, 0, torch.device("cpu"))
    state.network.eval()
    generator = torch.Generator().manual_seed(0)
    mine = share(torch.arange(IMAGES))
    images = torch.randn(IMAGES, 1, 12, 12, generator=generator)[mine]
    logits = 3 * torch.randn(IMAGES, 10, generator=generator)[mine]
    labels = torch.randint(10, (IMAGES,), generator=generator)[mine]
    maps = [images.abs().mean(1)[:, :side, :side] for side in (12, 6, 3, 2)]
    state.step(images, labels, TeacherOutputs(logits, maps), weight_of_share(len(mine), IMAGES))
    remembered = state.checkpoint()["optimizer"]["state"]
    gradients = {name: remembered[i]["momentum_buffer"] for i, (name, _) in enumerate(state.network.named_parameters())}
    return {"gradients": gradients, "losses": state.training_means()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined(torch.device("cpu")):
        torch.save(one_step(), Path(sys.argv[1]) / f"{distributed.RANK}.pt")
