"""`moonshine new`: an experiment for a folder of photographs, written to experiments/ and never over another."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from moonshine.checks.networks import check_batch_norms, check_networks
from moonshine.commands.new.choices import Choices, Request, choose, network_names
from moonshine.commands.new.estimate import time_lines
from moonshine.commands.new.found import what_looks_wrong, what_was_found
from moonshine.commands.new.survey import Survey, survey
from moonshine.commands.new.text import experiment_text
from moonshine.commands.new.weights import find_weights
from moonshine.commands.use import FOLDER
from moonshine.errors import ParamsError
from moonshine.params import Params, read_params
from moonshine.params.schema import Name
from moonshine.preparation.layouts import find_layout
from moonshine.runtime.cpus import usable_cpus
from moonshine.runtime.files import write_text

NEXT = """\
  moonshine use {name}
  snakemake --cores all    # or: dvc repro
  moonshine show           # the results page"""


def new(request: Request, is_estimated: bool) -> None:
    """Look at the images, choose, write experiments/<name>.yaml, and print what was found and chosen.

    Everything is checked before the file is written. Raises ParamsError (exit code 2) for a name that is taken or
    impossible, an unknown network, or one that cannot take the images; DataError (3) for images that cannot be used;
    CheckpointError (8) for weights that do not fit.
    """
    target = _target(request.name)
    network_names(request.teacher, request.students)  # before the long look at the images
    weights = find_weights(request.weights, request.teacher) if request.weights else None
    cpus = usable_cpus()
    request = _with_labels_below(request)
    found = survey(find_layout(request.folder, request.validation_share, labels=request.labels))
    choices = choose(request, found, weights, cpus, torch.cuda.is_available())
    text = experiment_text(choices, found, request.command)
    params = _checked(text, target)
    _require_free(target)
    write_text(target, text)
    print(_summary(target, params, choices, found), flush=True)
    if is_estimated:
        print("\n".join(["", *time_lines(params, found, cpus)]), flush=True)
    print(f"\nNext:\n{NEXT.format(name=request.name)}")


def _with_labels_below(request: Request) -> Request:
    """The same with the CSV file's path relative to the folder, so that data do not depend on where that is."""
    if request.labels is None:
        return request
    try:
        path = Path(os.path.normpath(request.folder / request.labels))
        return replace(request, labels=path.relative_to(request.folder).as_posix())
    except ValueError:
        raise ParamsError(f"--labels {request.labels}: not in {request.folder}; move it there") from None


def _target(name: str) -> Path:
    if not FOLDER.is_dir():
        raise ParamsError(f"{FOLDER}: no such folder; run this from the project's root")
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ParamsError(
            f'"{name}": not a name for an experiment; use lower-case letters, digits, - and _, at most 60'
        ) from None
    target = FOLDER / f"{name}.yaml"
    _require_free(target)
    return target


def _require_free(target: Path) -> None:
    if target.exists():
        raise ParamsError(f"{target}: exists already and is not overwritten; choose another name, or delete it")


def _checked(text: str, target: Path) -> Params:
    """What the schema and the networks make of the text, as `moonshine check` would, before anybody sees it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, target.name)
        path.write_text(text, encoding="utf-8")
        try:
            params = read_params(path)
            check_networks(params)
            check_batch_norms(params)
        except ParamsError as error:
            raise ParamsError(str(error).replace(f"{path}: ", "")) from None
    return params


def _summary(target: Path, params: Params, choices: Choices, found: Survey) -> str:
    dataset = params.dataset
    assert dataset.evaluation is not None
    wrong = list(what_looks_wrong(found, dataset.size, dataset.evaluation.resize))
    return "\n".join(
        [
            "Found:",
            *_listed(what_was_found(found)),
            "",
            "Chosen:",
            *_listed(_what_was_chosen(params, choices)),
            *(["", "Look at:", *_listed(wrong)] if wrong else []),
            "",
            f"Wrote {target}, where each value has its reason; change what you like.",
        ]
    )


def _what_was_chosen(params: Params, choices: Choices) -> Iterator[str]:
    dataset, recipe, why = params.dataset, params.recipe, choices.reasons
    colours = "grey" if dataset.channels == 1 else "colour"
    because = f": {why['size']}" if "size" in why else ""
    yield f"{colours} squares of {dataset.size} pixels{because}"
    yield f"{recipe.epochs} epochs of batches of {recipe.batch_size}: {why['epochs']}"
    yield f"learning rate {recipe.lr:g}: {why['lr']}"
    for name, method in params.methods.items():
        yield f"{name}, attention transfer with beta {method.beta:g}: {why['beta']}"
    if "weights" in why:
        yield why["weights"]
    yield f"{len(params.rows)} trainings: {', '.join(row.name for row in params.rows)}"


def _listed(lines: list[str] | Iterator[str]) -> list[str]:
    return [f"  {line}" for line in lines]
