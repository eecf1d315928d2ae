"""From a row and a seed to its published model: find or train its run, then publish."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from moonshine import artefacts
from moonshine.data.loading import SmallImages
from moonshine.data.store import read_manifest
from moonshine.device import choose_device, set_up
from moonshine.files import write_bytes, write_json, write_text
from moonshine.models.model_file import model_bytes
from moonshine.models.networks import describe
from moonshine.params import Params
from moonshine.progress import say
from moonshine.training.identity import run_identity
from moonshine.training.loop import Teacher, TrainingLoop
from moonshine.training.objective import Objective
from moonshine.training.provenance import provenance
from moonshine.training.run_folder import RunFolder
from moonshine.training.trainee import Trainee

MakeObjective = Callable[[str], Objective]
MakeTeacher = Callable[[torch.device], Teacher]


def train_rows(
    params: Params, rows: Iterable[str], seed: int, make_objective: MakeObjective, make_teacher: MakeTeacher | None
) -> list[RunFolder]:
    """Bring the runs of all rows with one seed to their end, together; what is finished already costs nothing.

    Returns the finished runs in the order of the rows, still locked.
    `make_objective` gets a row; `make_teacher` is called only if there is something to train.
    """
    device = choose_device(params.machine)
    set_up(params.recipe.threads)
    folder = artefacts.data_folder(params.dataset.name)
    manifest = read_manifest(folder)
    runs: dict[Trainee, RunFolder] = {}
    folders = []
    started = time.time()
    for row in rows:
        architecture = row_architecture(params, row, manifest)
        run = RunFolder(params.experiment, row, seed, run_identity(params, row, seed, architecture, device))
        folders.append(run)
        if run.finished():
            continue
        trainee = Trainee(row, architecture, make_objective(row), params.recipe, seed, device)
        if state := run.load():
            trainee.load_state(state)
            say(f"{run.path}: going on from epoch {trainee.epoch}, batch {trainee.batch}")
        runs[trainee] = run
    if runs:
        _announce(params, runs, seed, device)
        train, val = SmallImages(folder, "train", device), SmallImages(folder, "val", device)
        teacher = make_teacher(device) if make_teacher else None
        machine = params.machine
        loop = TrainingLoop(
            runs, teacher, train, val, params.recipe, seed, machine.checkpoint_seconds, machine.checkpoint_steps
        )
        loop.run()
        for trainee, run in runs.items():
            run.finish(
                model_bytes(trainee.network, _description(trainee, manifest)),
                {"history": trainee.history, **provenance(device, started)},
            )
    return folders


def publish(params: Params, row: str, seed: int, run: RunFolder) -> None:
    """Copy a finished run to the places that the engines declare, each written whole, the model last."""
    finished = run.finished()
    assert finished is not None
    model, record = finished
    write_text(artefacts.curve(params.experiment, row, seed), _curve(record["history"]))
    made = {key: value for key, value in record.items() if key != "history"}
    write_json(artefacts.record(params.experiment, row, seed), {"row": row, **made, "identity": run.identity})
    path = artefacts.model(params.experiment, row, seed)
    write_bytes(path, model)
    say(f"{path}: val top-1 error {record['history'][-1]['val_top1']:.2f} %, sha256 {record['sha256'][:16]}")


def row_architecture(params: Params, row: str, manifest: dict[str, Any]) -> dict[str, Any]:
    network = params.networks[row.split("/")[-1]]
    return describe(network, classes=len(manifest["classes"]), in_channels=manifest["shape"][0])


def _description(trainee: Trainee, manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "architecture": trainee.architecture,
        "input": manifest["shape"],
        "normalisation": manifest["normalisation"],
        "classes": manifest["classes"],
    }


def _announce(params: Params, trainees: Iterable[Trainee], seed: int, device: torch.device) -> None:
    """What a reader of the log needs to repeat the run."""
    recipe = params.recipe
    for trainee in trainees:
        method = params.methods[trainee.row.split("/")[1]] if trainee.row.startswith("distil/") else None
        distilled = f", teacher {params.teacher}, {method.model_dump(exclude_none=True)}" if method else ""
        say(
            f"{trainee.row}: seed {seed}, global batch size {recipe.batch_size}, {recipe.epochs} epochs, "
            f"lr {recipe.lr:g} x {recipe.lr_factor:g} after epochs {recipe.lr_steps}, "
            f"{device}, {recipe.threads} threads{distilled}"
        )


def _curve(history: list[dict[str, float]]) -> str:
    """CSV with a line an epoch."""
    lines = [",".join(history[0])]
    lines += [",".join(f"{value:.6g}" for value in epoch.values()) for epoch in history]
    return "\n".join(lines) + "\n"
