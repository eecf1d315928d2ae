"""Train the unfinished runs of one seed together and leave them finished in their folders."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from moonshine.data.class_weights import balanced_weights
from moonshine.data.loading import Images, limited, open_images
from moonshine.errors import CheckpointError, DivergedError, ParamsError
from moonshine.models.arithmetic import make_deterministic
from moonshine.models.model_file import model_bytes, model_description
from moonshine.models.networks import build_network
from moonshine.params import Params, Recipe
from moonshine.project import artefacts
from moonshine.project.rows import Row, model_name
from moonshine.runs.checkpoints import has_checkpoint, load_newest_checkpoint, require_room_for
from moonshine.runs.provenance import processor_of, provenance
from moonshine.runs.run_folder import RunFolder
from moonshine.runtime import distributed
from moonshine.runtime.device import choose_device
from moonshine.runtime.device_errors import explain_device_error
from moonshine.runtime.progress import say
from moonshine.runtime.words import counted
from moonshine.training.loop import TrainingLoop
from moonshine.training.memory import batches_of_students, free_memory, measure_need
from moonshine.training.objective import Objective
from moonshine.training.replicas import joined
from moonshine.training.schedule import steps_per_epoch
from moonshine.training.start import Starts
from moonshine.training.state import TrainingState

MakeObjective = Callable[[Row, torch.Tensor | None], Objective]
Forward = Callable[[torch.Tensor], Any]
MakeTeacher = Callable[[torch.device, Recipe], Forward]

SHARED = ("epochs", "images", "batch_size", "augmentation", "precision", "compile")
"""Keys of the recipe that decide the batches and what the teacher makes of them: equal in runs trained together."""

OPTIONAL = (
    "warmup_epochs",
    "optimizer",
    "norm_weight_decay",
    "clip_grad_norm",
    "label_smoothing",
    "ema_decay",
    "zero_init_residual",
)
"""Keys of the recipe that are announced if they are set."""


def train_runs(
    params: Params, runs: Sequence[RunFolder], make_objective: MakeObjective, make_teacher: MakeTeacher | None
) -> None:
    """Train the unfinished ones of the runs, all of one seed, to completion.

    `make_objective` gets a row and the weights of classes; `make_teacher` gets the device and a recipe with the
    precision that the teacher needs.
    """
    device = choose_device(params.machine.device, params.machine.trainings_per_gpu)
    make_deterministic(params.recipe.threads)
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
    for run in runs:  # before any is trained
        _require_whole_batches(params, run, train)
    starts = Starts(params)
    starts.require(_without_checkpoint(runs))
    failures = []
    for alike in _with_equal_batches(params, runs):
        recipe = params.recipe_of(alike[0].row)
        make_deterministic(recipe.threads, tf32=recipe.precision == "tf32")
        visited = limited(train, recipe.images)
        teacher = make_teacher(device, recipe) if make_teacher else None
        for group in _batches_of_students(params, alike, make_objective, teacher, visited):
            failures += _train_group(device, params, group, make_objective, teacher, visited, val, starts, started)
    if failures:
        raise failures[0]


def _with_equal_batches(params: Params, runs: Sequence[RunFolder]) -> list[list[RunFolder]]:
    """The runs in groups that can share batches and the teacher's forward passes."""
    groups: list[tuple[Recipe, list[RunFolder]]] = []
    for run in runs:
        recipe = params.recipe_of(run.row)
        alike = next((group for other, group in groups if _has_equal_batches(recipe, other)), None)
        if alike is None:
            groups.append((recipe, [run]))
        else:
            alike.append(run)
    return [group for _, group in groups]


def _has_equal_batches(recipe: Recipe, other: Recipe) -> bool:
    return all(getattr(recipe, key) == getattr(other, key) for key in SHARED)


def _train_group(
    device: torch.device,
    params: Params,
    runs: Sequence[RunFolder],
    make_objective: MakeObjective,
    teacher: Forward | None,
    train: Images,
    val: Images,
    starts: Starts,
    started: float,
) -> list[DivergedError]:
    """Train runs with equal batches to completion; returns the errors of those that diverged."""
    states = {
        _resume(
            params.recipe_of(run.row),
            run,
            _objective(params, run.row, make_objective, train),
            device,
            starts,
            len(train),
        ): run
        for run in runs
    }
    _announce(params, states, len(train), device)
    require_room_for(runs[0].path, [state.checkpoint() for state in states])
    machine, recipe = params.machine, params.recipe_of(runs[0].row)
    loop = TrainingLoop(
        states, teacher, train, val, recipe, runs[0].seed, machine.checkpoint_seconds, machine.checkpoint_steps
    )
    failures = loop.run()
    for state in loop.states:
        if distributed.IS_MAIN:
            name = model_name(state.row, state.seed)
            model = model_bytes(state.result, model_description(name, state.architecture, train.manifest))
            made = {"history": state.history, **provenance(device, started), "trained_on": state.trained_on}
            states[state].finish(model, made)
    return failures


def _require_whole_batches(params: Params, run: RunFolder, train: Images) -> None:
    """Raise ParamsError (exit code 2) if the last batch has too few images for each process, or for batch norm.

    Batch norm must not get one value per channel: its variance is undefined.
    """
    recipe, key = params.recipe_of(run.row), params.recipe_key(run.row, "batch_size")
    images = recipe.images or len(train)
    smallest = images % recipe.batch_size or recipe.batch_size
    leaves = f"{key}: {recipe.batch_size} leaves a last batch of {smallest} of {images} images"
    if smallest < distributed.WORLD_SIZE:
        raise ParamsError(f"{leaves}, too few for {distributed.WORLD_SIZE} processes; choose another")
    if smallest // distributed.WORLD_SIZE > 1:
        return
    try:
        with torch.no_grad():
            shape = train.manifest["shape"][0], params.training_size(run.row), params.training_size(run.row)
            build_network(run.identity["network"])(torch.empty(1, *shape, device="meta"))
    except ValueError:
        shared = f", shared by {distributed.WORLD_SIZE} processes" if distributed.WORLD_SIZE > 1 else ""
        raise ParamsError(f"{leaves}{shared}, too few for the batch norm of {run.row}; choose another") from None


def _batches_of_students(
    params: Params,
    runs: Sequence[RunFolder],
    make_objective: MakeObjective,
    teacher: Forward | None,
    train: Images,
) -> list[list[RunFolder]]:
    """Runs with equal batches in groups that fit in memory together."""
    if len(runs) == 1:
        return [list(runs)]
    recipe = params.recipe_of(runs[0].row)
    images, labels = next(train.training_batches(recipe.augmentation, runs[0].seed, 1, recipe.batch_size))
    of_teacher = teacher(images) if teacher else None
    needs = []
    for run in runs:
        # without compiling, which needs no less memory and takes minutes
        eager = params.recipe_of(run.row).model_copy(update={"compile": False})
        objective = _objective(params, run.row, make_objective, train)
        state = TrainingState(run.row, run.identity["network"], objective, eager, run.seed, train.device)
        needs.append(measure_need(state, images, labels, of_teacher))
        say(f"{run.row}: {needs[-1].lasting / 1e6:.1f} MB, and {needs[-1].passing / 1e6:.1f} MB more in its step")
        del state
    free = free_memory(train.device, params.machine.trainings_per_gpu)
    groups = distributed.broadcast_from_main(batches_of_students(needs, free))
    return [[runs[index] for index in group] for group in groups]


def _objective(params: Params, row: Row, make_objective: MakeObjective, train: Images) -> Objective:
    if params.recipe_of(row).class_weights is None:
        return make_objective(row, None)
    labels = train.labels[train.visited.to(train.device)]
    return make_objective(row, balanced_weights(labels, len(train.manifest["classes"])))


def _without_checkpoint(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs that are at their start, in all processes as the first one sees it."""
    begun = distributed.broadcast_from_main([distributed.IS_MAIN and has_checkpoint(run.path) for run in runs])
    return [run for run, has_begun in zip(runs, begun) if not has_begun]


def _resume(
    recipe: Recipe, run: RunFolder, objective: Objective, device: torch.device, starts: Starts, images: int
) -> TrainingState:
    """The state of a run on so many images at its newest checkpoint, or at the start."""
    saved = distributed.broadcast_from_main(load_newest_checkpoint(run.path) if distributed.IS_MAIN else None)
    start = None if saved else starts.of(run)
    steps = steps_per_epoch(recipe, images)
    state = TrainingState(run.row, run.identity["network"], objective, recipe, run.seed, device, start, steps)
    if saved:
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


def _announce(params: Params, states: Iterable[TrainingState], images: int, device: torch.device) -> None:
    """What a reader of the log needs to repeat the run."""
    for state in states:
        recipe = state.recipe
        method = params.methods[state.row.method] if state.row.method else None
        further = "".join(f", {key} {value}" for key in OPTIONAL if (value := getattr(recipe, key)) is not None)
        distilled = f", teacher {params.teacher}, {method.objective}" if method else ""
        say(
            f"{state.row}: seed {state.seed}, {images:,} images, global batch size {recipe.batch_size}, "
            f"{counted(recipe.epochs, 'epoch')}, lr {_rate_in_words(recipe)}{further}, "
            f"{device}, {counted(recipe.threads, 'thread')}{distilled}"
        )


def _rate_in_words(recipe: Recipe) -> str:
    if recipe.schedule in ("cosine", "linear"):
        return f"{recipe.lr:g} to {recipe.lr_min or 0:g} ({recipe.schedule})"
    if not recipe.lr_steps:
        return f"{recipe.lr:g}"
    epochs = "epoch" if len(recipe.lr_steps) == 1 else "epochs"
    return f"{recipe.lr:g} x {recipe.lr_factor:g} after {epochs} {', '.join(map(str, recipe.lr_steps))}"
