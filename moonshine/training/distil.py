"""`moonshine distil`: networks that learn from the labels and from a teacher."""

from collections.abc import Iterable

from moonshine import artefacts
from moonshine.params import Params
from moonshine.training.publish import publish
from moonshine.training.run_folder import RunFolder


def distil(params: Params, student: str, seed: int) -> None:
    """Train one student, `<method>/<network>`, unless a finished run is there already, and publish it."""
    (run,) = distil_together(params, [student], seed)
    publish(params, run)


def distil_together(params: Params, students: Iterable[str], seed: int) -> list[RunFolder]:
    """Train students of one seed with one forward pass of the teacher a batch, and leave them finished in runs/.

    Each has the bytes that it would have alone; its own stage then publishes it without torch, in a second.
    """
    runs = [RunFolder(params, f"distil/{student}", seed) for student in students]
    if unfinished := [run for run in runs if not run.finished()]:
        _train(params, unfinished)
    return runs


def _train(params: Params, runs: list[RunFolder]) -> None:
    import torch

    from moonshine.distillation.objective import Distillation
    from moonshine.distillation.teacher import Teacher
    from moonshine.models.networks import attention_points
    from moonshine.training.session import train_runs
    from moonshine.training.trainee import PRECISIONS

    points = {run.row: attention_points(run.identity["network"]) for run in runs}

    def make_objective(row: str) -> Distillation:
        return Distillation(params.methods[row.split("/")[1]], points[row])

    def make_teacher(device: torch.device) -> Teacher:
        path = artefacts.teacher_model(params.experiment, params.teacher)
        return Teacher(path, params.teacher, device, PRECISIONS[params.recipe.precision])

    train_runs(params, runs, make_objective, make_teacher)
