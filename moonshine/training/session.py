"""Train the unfinished runs of one seed together and leave them finished in their folders."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from moonshine import artefacts
from moonshine.data.loading import SmallImages
from moonshine.device import choose_device, set_up
from moonshine.models.model_file import model_bytes
from moonshine.params import Params
from moonshine.progress import say
from moonshine.training.checkpoints import load_newest_checkpoint, remove_checkpoints
from moonshine.training.loop import Teacher, TrainingLoop
from moonshine.training.objective import Objective
from moonshine.training.provenance import provenance
from moonshine.training.run_folder import RunFolder
from moonshine.training.trainee import Trainee

MakeObjective = Callable[[str], Objective]
MakeTeacher = Callable[[torch.device], Teacher]


def train_runs(
    params: Params, runs: Sequence[RunFolder], make_objective: MakeObjective, make_teacher: MakeTeacher | None
) -> None:
    """Bring unfinished runs, all of one seed, to their end.

    `make_objective` gets a row, `make_teacher` the device.
    """
    started = time.time()
    device = choose_device(params.machine)
    set_up(params.recipe.threads)
    folder = artefacts.data_folder(params.dataset.name)
    train, val = SmallImages(folder, "train", device), SmallImages(folder, "val", device)
    trainees = {_resume(params, run, make_objective(run.row), device): run for run in runs}
    _announce(params, trainees, device)
    teacher = make_teacher(device) if make_teacher else None
    machine = params.machine
    loop = TrainingLoop(
        trainees, teacher, train, val, params.recipe, runs[0].seed, machine.checkpoint_seconds, machine.checkpoint_steps
    )
    loop.run()
    for trainee, run in trainees.items():
        model = model_bytes(trainee.network, _description(trainee, train.manifest))
        run.finish(model, {"history": trainee.history, **provenance(device, started)})
        remove_checkpoints(run.path)


def _resume(params: Params, run: RunFolder, objective: Objective, device: torch.device) -> Trainee:
    """The network of a run where its newest checkpoint left it, or at the start."""
    trainee = Trainee(run.row, run.identity["network"], objective, params.recipe, run.seed, device)
    if state := load_newest_checkpoint(run.path):
        trainee.load_state(state)
        say(f"{run.path}: going on from epoch {trainee.epoch}, batch {trainee.batch}")
    return trainee


def _description(trainee: Trainee, manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "architecture": trainee.architecture,
        "input": manifest["shape"],
        "normalisation": manifest["normalisation"],
        "classes": manifest["classes"],
    }


def _announce(params: Params, trainees: Iterable[Trainee], device: torch.device) -> None:
    """What a reader of the log needs to repeat the run."""
    recipe = params.recipe
    for trainee in trainees:
        method = params.methods[trainee.row.split("/")[1]] if trainee.row.startswith("distil/") else None
        distilled = f", teacher {params.teacher}, {method.model_dump(exclude_none=True)}" if method else ""
        say(
            f"{trainee.row}: seed {trainee.seed}, global batch size {recipe.batch_size}, {recipe.epochs} epochs, "
            f"lr {recipe.lr:g} x {recipe.lr_factor:g} after epochs {recipe.lr_steps}, "
            f"{device}, {recipe.threads} threads{distilled}"
        )
