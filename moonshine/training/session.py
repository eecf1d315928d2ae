"""Train the unfinished runs of one seed together and leave them finished in their folders."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from moonshine.data.loading import Images, open_images
from moonshine.errors import CheckpointError, ParamsError
from moonshine.models.arithmetic import make_deterministic
from moonshine.models.model_file import model_bytes, model_description
from moonshine.models.networks import build_network
from moonshine.params import Params, Recipe
from moonshine.project import artefacts
from moonshine.project.rows import Row, model_name
from moonshine.runs.checkpoints import load_newest_checkpoint, require_room_for
from moonshine.runs.provenance import processor_of, provenance
from moonshine.runs.run_folder import RunFolder
from moonshine.runtime import distributed
from moonshine.runtime.device import choose_device
from moonshine.runtime.device_errors import explain_device_error
from moonshine.runtime.progress import say
from moonshine.training.loop import TrainingLoop
from moonshine.training.memory import batches_of_students, free_memory, measure_need
from moonshine.training.objective import Objective
from moonshine.training.replicas import joined
from moonshine.training.state import TrainingState

MakeObjective = Callable[[Row], Objective]
Forward = Callable[[torch.Tensor], Any]
MakeTeacher = Callable[[torch.device], Forward]


def train_runs(
    params: Params, runs: Sequence[RunFolder], make_objective: MakeObjective, make_teacher: MakeTeacher | None
) -> None:
    """Train the unfinished ones of the runs, all of one seed, to completion.

    `make_objective` gets a row, `make_teacher` the device.
    """
    device = choose_device(params.machine.device, params.machine.trainings_per_gpu)
    make_deterministic(params.recipe.threads, tf32=params.recipe.precision == "tf32")
    with joined(device):
        # the first process says which: on a network file system, others may see its latest files later
        finished = distributed.broadcast_from_main([distributed.IS_MAIN and bool(run.finished()) for run in runs])
        if unfinished := [run for run, done in zip(runs, finished) if not done]:
            _train_on(device, params, unfinished, make_objective, make_teacher)


def _train_on(
    device: torch.device,
    params: Params,
    runs: Sequence[RunFolder],
    make_objective: MakeObjective,
    make_teacher: MakeTeacher | None,
) -> None:
    started = time.time()
    folder = artefacts.data_folder(params.dataset.name)
    train, val = (open_images(folder, split, device, params.machine.workers) for split in ("train", "val"))
    _require_work_for_all(len(train), params.recipe.batch_size)
    for run in runs:
        _require_statistics(run, train, params.recipe.batch_size)
    teacher = make_teacher(device) if make_teacher else None
    failures = []
    for group in _batches_of_students(params, runs, make_objective, teacher, train):
        states = {_resume(params.recipe, run, make_objective(run.row), device): run for run in group}
        _announce(params, states, device)
        require_room_for(group[0].path, [state.checkpoint() for state in states])
        machine, seed = params.machine, group[0].seed
        loop = TrainingLoop(
            states, teacher, train, val, params.recipe, seed, machine.checkpoint_seconds, machine.checkpoint_steps
        )
        failures += loop.run()
        for state in loop.states:
            if distributed.IS_MAIN:
                name = model_name(state.row, state.seed)
                model = model_bytes(state.network, model_description(name, state.architecture, train.manifest))
                made = {"history": state.history, **provenance(device, started), "trained_on": state.trained_on}
                states[state].finish(model, made)
    if failures:
        raise failures[0]


def _require_work_for_all(images: int, batch_size: int) -> None:
    smallest = images % batch_size or batch_size
    if smallest < distributed.WORLD_SIZE:
        raise ParamsError(
            f"recipe.batch_size: {batch_size} leaves a last batch of {smallest} of {images} images, too few for "
            f"{distributed.WORLD_SIZE} processes; choose another"
        )


def _require_statistics(run: RunFolder, train: Images, batch_size: int) -> None:
    """Raise ParamsError (exit code 2) if batch norm would get one value per channel: its variance is undefined."""
    smallest = len(train) % batch_size or batch_size
    if smallest // distributed.WORLD_SIZE > 1:
        return
    try:
        with torch.no_grad():
            build_network(run.identity["network"])(torch.empty(1, *train.manifest["shape"], device="meta"))
    except ValueError:
        shared = f", shared by {distributed.WORLD_SIZE} processes" if distributed.WORLD_SIZE > 1 else ""
        raise ParamsError(
            f"recipe.batch_size: {batch_size} leaves a last batch of {smallest} of {len(train)} images{shared}, "
            f"too few for the batch norm of {run.row}; choose another"
        ) from None


def _batches_of_students(
    params: Params,
    runs: Sequence[RunFolder],
    make_objective: MakeObjective,
    teacher: Forward | None,
    train: Images,
) -> list[list[RunFolder]]:
    """The runs in groups that fit in memory together."""
    if len(runs) == 1:
        return [list(runs)]
    recipe = params.recipe
    images, labels = next(train.training_batches(recipe.augmentation, runs[0].seed, 1, recipe.batch_size))
    of_teacher = teacher(images) if teacher else None
    eager = recipe.model_copy(update={"compile": False})  # which needs no less memory, and no minutes to compile
    needs = []
    for run in runs:
        state = TrainingState(run.row, run.identity["network"], make_objective(run.row), eager, run.seed, train.device)
        needs.append(measure_need(state, images, labels, of_teacher))
        say(f"{run.row}: {needs[-1].lasting / 1e6:.1f} MB, and {needs[-1].passing / 1e6:.1f} MB more in its step")
        del state
    free = free_memory(train.device, params.machine.trainings_per_gpu)
    groups = distributed.broadcast_from_main(batches_of_students(needs, free))
    return [[runs[index] for index in group] for group in groups]


def _resume(recipe: Recipe, run: RunFolder, objective: Objective, device: torch.device) -> TrainingState:
    """The state of a run at its newest checkpoint, or at the start."""
    state = TrainingState(run.row, run.identity["network"], objective, recipe, run.seed, device)
    if saved := distributed.broadcast_from_main(load_newest_checkpoint(run.path) if distributed.IS_MAIN else None):
        try:
            state.load_checkpoint(saved)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and (explained := explain_device_error(error)):
                raise explained from None
            raise CheckpointError(f"{run.path}: its checkpoint does not fit: {error}; delete this folder") from None
        say(f"{run.path}: resuming from epoch {state.epoch}, batch {state.batch}")
    _note_processors(state, run, distributed.gather(processor_of(device)))
    return state


def _note_processors(state: TrainingState, run: RunFolder, here: Iterable[str]) -> None:
    """Add the processes' processors to those that have trained the network, since its bytes depend on all of them."""
    if new := [processor for processor in dict.fromkeys(here) if processor not in state.trained_on]:
        if state.trained_on:
            before, now = ", ".join(state.trained_on), ", ".join(new)
            say(f"warning: {run.path}: trained on {before} so far, from now on on {now}, which rounds differently")
        state.trained_on += new


def _announce(params: Params, states: Iterable[TrainingState], device: torch.device) -> None:
    """What a reader of the log needs to repeat the run."""
    recipe = params.recipe
    for state in states:
        method = params.methods[state.row.method] if state.row.method else None
        distilled = f", teacher {params.teacher}, {method.model_dump(exclude_none=True)}" if method else ""
        say(
            f"{state.row}: seed {state.seed}, global batch size {recipe.batch_size}, {recipe.epochs} epochs, "
            f"lr {recipe.lr:g} x {recipe.lr_factor:g} after epochs {recipe.lr_steps}, "
            f"{device}, {recipe.threads} threads{distilled}"
        )
