"""What seeds and rows left behind that params.yaml no longer has.

DVC depends on whole folders where a stage gathers files of all seeds or rows, so a file of a former one would make that
stage stale, or stand in dvc.lock and be missed in every clone.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from moonshine import artefacts
from moonshine.params import Params
from moonshine.progress import say

ASIDE = artefacts.RUNS / ".leftovers"


def set_aside_leftovers(params: Params) -> None:
    """Move such models, curves, metrics and scores to the same paths below runs/.leftovers, so that nothing is lost."""
    for path in sorted(_leftovers(params)):
        aside = ASIDE / path
        aside.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another stage was first
            shutil.move(path, aside)
            say(f"{path}: of no seed or row of params.yaml, now in {ASIDE}")


def _leftovers(params: Params) -> Iterator[Path]:
    experiment, trained = params.experiment, [row for row in params.rows if not row.startswith("fetch/")]
    for row in trained:
        models = {artefacts.model(experiment, row, seed) for seed in params.seeds}
        yield from set(artefacts.model(experiment, row, 0).parent.glob("seed*.safetensors")) - models
    curves = {artefacts.curve(experiment, row, seed) for row in trained for seed in params.seeds}
    yield from set(artefacts.all_curves(experiment).rglob("*.csv")) - curves
    for folder, file in ((artefacts.all_metrics, artefacts.metrics), (artefacts.all_scores, artefacts.scores)):
        yield from set(folder(experiment).rglob("*.json")) - {file(experiment, row) for row in params.rows}
