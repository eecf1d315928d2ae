"""`moonshine distil`: a network that learns from the labels and from a teacher."""

from collections.abc import Iterable

import torch

from moonshine import artefacts
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import Teacher
from moonshine.models.networks import attention_points
from moonshine.params import Params
from moonshine.training.run_folder import RunFolder
from moonshine.training.session import publish, train_rows
from moonshine.training.trainee import PRECISIONS


def distil(params: Params, student: str, seed: int) -> None:
    """Train and publish one student, `<method>/<network>`."""
    (run,) = distil_together(params, [student], seed)
    publish(params, f"distil/{student}", seed, run)


def distil_together(params: Params, students: Iterable[str], seed: int) -> list[RunFolder]:
    """Train students of one seed with one forward pass of the teacher a batch, and leave them finished in runs/.

    Each has the bytes that it would have alone; its own stage then publishes it in seconds.
    """

    def make_objective(row: str) -> Distillation:
        _, method, network = row.split("/")
        return Distillation(params.methods[method], attention_points(params.networks[network].model_dump()))

    def make_teacher(device: torch.device) -> Teacher:
        path = artefacts.teacher_model(params.experiment, params.teacher)
        return Teacher(path, device, PRECISIONS[params.recipe.precision])

    return train_rows(params, [f"distil/{student}" for student in students], seed, make_objective, make_teacher)
