"""Outputs of seeds and rows that params.yaml no longer has, and any other files among them.

A stage that gathers files of all seeds or rows depends on their whole folder under DVC, so any other file there would
make that stage stale, or be recorded in dvc.lock and be missing from every clone.
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from moonshine.errors import MachineError
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.git import git
from moonshine.runtime.files import is_temporary
from moonshine.runtime.progress import say

ASIDE = artefacts.RUNS / ".leftovers"


def set_aside_leftovers(params: Params) -> None:
    """Move such files to the same paths below runs/.leftovers, so that nothing is lost.

    Files that git tracks stay: they would be missing from the working tree and stop a rebase.
    """
    leftovers = sorted(_leftovers(params))
    tracked = _tracked(leftovers)
    for path in (path for path in leftovers if path not in tracked):
        with contextlib.suppress(FileNotFoundError):  # another stage moved it first
            set_aside(path)
            say(f"{path}: of no seed, row or search of params.yaml, now in {ASIDE}")
    if tracked:
        names = " ".join(map(str, sorted(tracked)))
        what = "of no seed, row or search of params.yaml, but in git, and part of what the report depends on"
        say(f"{what}: `git rm {names}`")


def set_aside(path: Path) -> None:
    """Move a file of the project to the same path below runs/.leftovers, with a number if there is one already."""
    aside = ASIDE / path
    aside.parent.mkdir(parents=True, exist_ok=True)
    numbered = (aside.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    while os.path.lexists(aside):
        aside = next(numbered)
    shutil.move(path, aside)


def _tracked(paths: list[Path]) -> set[Path]:
    """The paths that are in git's index; if git does not work, all that may be in it."""
    if not paths:
        return set()
    try:
        listed = git("ls-files", "-z", "--", *map(str, paths)) or b""
    except MachineError:
        return {path for path in paths if path.parts[0] == "results"}
    return {Path(os.fsdecode(name)) for name in listed.split(b"\0") if name}


def _leftovers(params: Params) -> Iterator[Path]:
    experiment = params.experiment
    for row in params.seeded_rows:
        models = {artefacts.model(experiment, row, seed) for seed in params.seeds}
        yield from _files(artefacts.model(experiment, row, 0).parent) - models
    curves = {artefacts.curve(experiment, row, seed) for row in params.seeded_rows for seed in params.seeds}
    yield from _files(artefacts.all_curves(experiment)) - curves
    searches = {artefacts.search(experiment, name) for name in params.search}
    yield from {*artefacts.all_searches(experiment).glob("*.json")} - searches
    evaluated = [(row, seed) for row in params.evaluated_rows for seed in params.seeds_of(row)]
    predictions = {artefacts.predictions(experiment, row, seed) for row, seed in evaluated}
    yield from _files(artefacts.all_predictions(experiment)) - predictions
    of_rows = (
        (artefacts.all_metrics, artefacts.metrics),
        (artefacts.all_scores, artefacts.scores),
        (artefacts.all_confusions, artefacts.confusion),
    )
    for folder, file in of_rows:
        kept = {file(experiment, row) for row in params.evaluated_rows}
        if folder == artefacts.all_metrics:
            kept |= {artefacts.int8_metrics(experiment, row) for row in params.quantised_rows}
        yield from _files(folder(experiment)) - kept


def _files(folder: Path) -> set[Path]:
    """All files that DVC would hash with the folder, except those being written."""
    found = {path for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    own = (artefacts.SNAKEMAKE_TIMESTAMP, ".gitignore")  # the engines' own files
    return {path for path in found if path.name not in own and not is_temporary(path)}
