"""What seeds and rows left behind that params.yaml no longer has, and whatever else lies among their files.

DVC depends on whole folders where a stage gathers files of all seeds or rows, so any other file there would make that
stage stale, or stand in dvc.lock and be missed in every clone.
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from moonshine import artefacts
from moonshine.files import is_temporary
from moonshine.params import Params
from moonshine.progress import say

ASIDE = artefacts.RUNS / ".leftovers"


def set_aside_leftovers(params: Params) -> None:
    """Move such files to the same paths below runs/.leftovers, so that nothing is lost."""
    for path in sorted(_leftovers(params)):
        with contextlib.suppress(FileNotFoundError):  # another stage was first
            set_aside(path)
            say(f"{path}: of no seed or row of params.yaml, now in {ASIDE}")


def set_aside(path: Path) -> None:
    """Move a file of the project to the same path below runs/.leftovers, with a number where one lies there already."""
    aside = ASIDE / path
    aside.parent.mkdir(parents=True, exist_ok=True)
    numbered = (aside.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    while os.path.lexists(aside):
        aside = next(numbered)
    shutil.move(path, aside)


def _leftovers(params: Params) -> Iterator[Path]:
    experiment = params.experiment
    for row in params.seeded_rows:
        models = {artefacts.model(experiment, row, seed) for seed in params.seeds}
        yield from _files(artefacts.model(experiment, row, 0).parent) - models
    curves = {artefacts.curve(experiment, row, seed) for row in params.seeded_rows for seed in params.seeds}
    yield from _files(artefacts.all_curves(experiment)) - curves
    for folder, file in ((artefacts.all_metrics, artefacts.metrics), (artefacts.all_scores, artefacts.scores)):
        yield from _files(folder(experiment)) - {file(experiment, row) for row in params.rows}


def _files(folder: Path) -> set[Path]:
    """All that DVC would hash with the folder, but what is being written."""
    found = {path for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    own = (artefacts.SNAKEMAKE_TIMESTAMP, ".gitignore")  # the engines'
    return {path for path in found if path.name not in own and not is_temporary(path)}
