"""The curves of an experiment: the history of each row, by epoch and seed."""

from pathlib import Path

import numpy as np
import pandas as pd

from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.rows import Row

ATTENTION = "attention_"
LOGIT_LOSSES = {
    "kd": "KD",
    "dist_inter": "DIST, inter",
    "dist_intra": "DIST, intra",
    "dkd_target": "DKD, target",
    "dkd_other": "DKD, other",
    "ttm": "TTM",
}
"""Columns with a loss that compares logits, and their names in figures."""
SHOWN = ("epoch", "lr", "train_top1", "val_top1")


def read_curves(params: Params, partial: bool = False) -> dict[Row, pd.DataFrame]:
    """Row -> its history, one line per seed and epoch; published rows have none.

    `partial` lets curves be missing. Raises DataError (exit code 3) for a curve that is otherwise missing, damaged or
    not finite, or that does not have the number of epochs of the row's recipe.
    """
    curves = {}
    for row in params.seeded_rows:
        paths = {seed: artefacts.curve(params.experiment, row, seed) for seed in params.seeds}
        if partial and not all(path.exists() for path in paths.values()):
            continue
        epochs = params.recipe_of(row).epochs
        frames = [_read(path, epochs).assign(seed=seed) for seed, path in paths.items()]
        curves[row] = pd.concat(frames, ignore_index=True)
    return curves


def attention_groups(curve: pd.DataFrame) -> list[str]:
    """Columns with the attention loss of a group, first group first."""
    groups = [column for column in curve.columns if column.startswith(ATTENTION)]
    return sorted(groups, key=lambda column: int(column.removeprefix(ATTENTION)))


def logit_losses(curve: pd.DataFrame) -> list[str]:
    """Columns with a loss that compares logits."""
    return [column for column in LOGIT_LOSSES if column in curve.columns]


def over_seeds(curve: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean, min and max over the seeds, by epoch."""
    return curve.groupby("epoch")[column].agg(["mean", "min", "max"])


def _read(path: Path, epochs: int) -> pd.DataFrame:
    again = "run the stage that trains it, or `dvc pull` and that stage"
    try:
        frame = pd.read_csv(path)
        shown = frame[[*SHOWN, *attention_groups(frame), *logit_losses(frame)]].astype(float)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {again}") from None
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())}); {again}") from None
    if list(shown["epoch"]) != list(range(1, epochs + 1)):
        raise DataError(f"{path}: has {len(shown)} epochs, params.yaml {epochs}; {again}")
    if not np.isfinite(shown.to_numpy()).all():
        raise DataError(f"{path}: a value is not finite; {again}")
    return shown
