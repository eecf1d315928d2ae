"""`moonshine compare`: how rows differ image by image, and how closely they follow the teacher."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from moonshine.comparison.fidelity import agreement, calibration_error, divergence
from moonshine.comparison.pairs import only_one_wrong, wrong
from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.predictions.parquet_file import Predictions, read_predictions
from moonshine.project import artefacts
from moonshine.project.rows import Row, parse_model
from moonshine.runtime import signals
from moonshine.runtime.files import write_text
from moonshine.runtime.progress import say
from moonshine.runtime.words import counted

Wrong = dict[str, np.ndarray]
BySeed = dict[int | None, Wrong]
"""A published network has no seed."""


def compare(params: Params) -> None:
    """Write fidelity.csv and pairs.csv to results/<experiment>/comparison.

    Both are made from what `evaluate` predicted. Raises DataError (exit code 3) for predictions that are missing,
    damaged or of other images.
    """
    experiment = params.experiment
    teacher = None if params.teacher_has_other_classes else _read(params, *parse_model(params.teacher))
    labels = None if teacher is None else teacher.labels
    fidelity = []
    rows: dict[Row, BySeed] = {}
    for row in params.evaluated_rows:
        rows[row] = {}
        for seed in params.seeds_of(row):
            signals.poll()
            predictions = _read(params, row, seed)
            labels = predictions.labels if labels is None else labels
            if not np.array_equal(predictions.labels, labels):
                path = artefacts.predictions(experiment, row, seed)
                raise DataError(f"{path}: of other images than the other rows; run `moonshine evaluate {row}`")
            rows[row][seed] = wrong(predictions)
            to_teacher = {"agreement": agreement, "kl": divergence}
            measured = {key: measure(predictions, teacher) if teacher else None for key, measure in to_teacher.items()}
            fidelity.append({"row": row.name, "seed": seed, **measured, "ece": calibration_error(predictions)})
    pairs = [line for ours, theirs in itertools.combinations(rows, 2) for line in _pairs(ours, theirs, rows)]
    texts = {"fidelity": _csv(pd.DataFrame(fidelity)), "pairs": _csv(pd.DataFrame(pairs, columns=PAIRS))}
    signals.poll()  # for the last time: once started, writing is not interrupted
    for name, text in texts.items():
        write_text(artefacts.comparison(experiment, name), text)
    say(f"{artefacts.comparison(experiment, 'pairs').parent}: {counted(len(rows), 'row')} compared")


PAIRS = ("row", "other", "seed", "images", "top1_only_row", "top1_only_other", "top5_only_row", "top5_only_other")


def _read(params: Params, row: Row, seed: int | None) -> Predictions:
    return read_predictions(artefacts.predictions(params.experiment, row, seed))


def _pairs(row: Row, other: Row, rows: dict[Row, BySeed]) -> Iterator[dict[str, str | int | None]]:
    """A line for each seed; a published network is compared with those of all seeds."""
    seeds = [seed for seed in rows[row] | rows[other] if seed is not None]
    for seed in seeds or (None,):
        ours, theirs = (rows[each].get(seed) or rows[each][None] for each in (row, other))
        counts = only_one_wrong(ours, theirs)
        yield {"row": row.name, "other": other.name, "seed": seed, "images": len(ours["top1"]), **counts}


def _csv(frame: pd.DataFrame) -> str:
    """With six decimals and whole seeds, none for a published network."""
    return frame.astype({"seed": "Int64"}).to_csv(index=False, float_format="%.6f", lineterminator="\n")
