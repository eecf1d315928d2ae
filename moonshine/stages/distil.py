"""`moonshine distil`: networks that learn from the labels and from a teacher."""

from collections.abc import Iterable
from pathlib import Path

from moonshine.errors import DataError
from moonshine.images.store import read_manifest
from moonshine.params import Method, Params, Recipe
from moonshine.project import artefacts
from moonshine.project.records import ModelDescription
from moonshine.project.rows import Row
from moonshine.runs.run_folder import RunFolder
from moonshine.runtime import distributed
from moonshine.training.publish import publish


def distil(params: Params, student: Row, seed: int) -> None:
    """Train one student, unless it has a finished run already, and publish it."""
    (run,) = distil_together(params, [student], seed)
    if distributed.IS_MAIN:
        publish(params.experiment, run)


def distil_together(params: Params, students: Iterable[Row], seed: int) -> list[RunFolder]:
    """Train students of one seed with one forward pass of the teacher per batch, and leave them finished in runs/.

    Students whose recipes ask for other batches or another precision form groups, which are trained one after another.
    Each student has the same bytes as if trained alone; its own stage then publishes it, without torch and in a second
    if `recipe.processes` is 1.
    """
    runs = [RunFolder.open(params, student, seed) for student in students]
    # several processes must ask together, and do so in training
    if unfinished := [run for run in runs if distributed.WORLD_SIZE > 1 or not run.finished()]:
        _train(params, unfinished)
    return runs


def _train(params: Params, runs: list[RunFolder]) -> None:
    import torch

    from moonshine.checks.networks import check_networks
    from moonshine.distillation.objective import Distillation
    from moonshine.distillation.teacher import Teacher
    from moonshine.models.attention_layers import attention_layers_of
    from moonshine.training.session import train_runs
    from moonshine.training.state import PRECISIONS

    check_networks(params, dict.fromkeys(run.row.network for run in runs))
    layers = {run.row: attention_layers_of(run.identity["network"]) for run in runs}

    def make_objective(row: Row, class_weights: torch.Tensor | None) -> Distillation:
        smoothing = params.recipe_of(row).label_smoothing or 0.0
        settings = _method(params, row).objective
        return Distillation(layers[row], class_weights=class_weights, label_smoothing=smoothing, **settings)

    def make_teacher(device: torch.device, recipe: Recipe) -> Teacher:
        path = artefacts.named_model(params.experiment, params.teacher)
        precision = PRECISIONS[recipe.precision]
        images = read_manifest(artefacts.data_folder(params.dataset.name))["normalisation"]
        teacher, description = Teacher.load(path, params.teacher, device, precision, recipe.compile, images)
        _check_teacher_matches(params, runs, path, description)
        return teacher

    train_runs(params, runs, make_objective, make_teacher)


def _method(params: Params, row: Row) -> Method:
    assert row.method is not None
    return params.methods[row.method]


def _check_teacher_matches(params: Params, runs: list[RunFolder], path: Path, teacher: ModelDescription) -> None:
    """Raise DataError (exit code 3) for a teacher that cannot see these images, or with logits for other classes."""
    dataset, manifest = params.dataset.name, read_manifest(artefacts.data_folder(params.dataset.name))
    if teacher["input"][0] != manifest["shape"][0]:
        raise DataError(
            f"{path}: takes images of {teacher['input'][0]} channels, data/{dataset} has {manifest['shape'][0]}"
        )
    uses_logits = any(_method(params, run.row).uses_logits for run in runs)
    if uses_logits and teacher["classes"] != manifest["classes"]:
        raise DataError(f"{path}: was trained on other classes than data/{dataset}; use attention transfer alone")
