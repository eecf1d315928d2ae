"""What `moonshine compare` counted over the predictions of all rows, read from results/<experiment>/comparison."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.project import artefacts

Error = Literal["top1", "top5"]
ERRORS: tuple[Error, ...] = ("top1", "top5")
Fidelity = Literal["agreement", "kl", "ece"]
FIDELITY: tuple[Fidelity, ...] = ("agreement", "kl", "ece")
BySeed = Mapping[str, float]
Errors = Mapping[tuple[str, Error], BySeed]
"""(row, error) -> seed -> per cent."""
AGAIN = "run `moonshine compare`"


@dataclass(frozen=True)
class ImageByImage:
    """By name of row, and seed as in metrics, where that of a published network is "published"."""

    fidelity: Mapping[tuple[str, Fidelity], dict[str, float]] = field(default_factory=dict)
    """(row, measure) -> seed -> value."""
    only_one_wrong: Mapping[tuple[str, str, Error], dict[str, tuple[int, int]]] = field(default_factory=dict)
    """(row, other, error) -> seed -> the number of images that only the row gets wrong, and only the other."""


def read_image_by_image(params: Params) -> ImageByImage:
    """Nothing if the files are missing, as in results of earlier versions.

    Raises DataError (exit code 3) for damaged ones.
    """
    fidelity = _read(artefacts.comparison(params.experiment, "fidelity"), ["row", "seed", *FIDELITY])
    columns = [f"{error}_only_{which}" for error in ERRORS for which in ("row", "other")]
    pairs = _read(artefacts.comparison(params.experiment, "pairs"), ["row", "other", "seed", "images", *columns])
    measured = dict[tuple[str, Fidelity], dict[str, float]]()
    for line in fidelity:
        for key in FIDELITY:
            if not pd.isna(value := line[key]):
                measured.setdefault((line["row"], key), {})[line["seed"]] = float(value)
    counts = dict[tuple[str, str, Error], dict[str, tuple[int, int]]]()
    for line in pairs:
        for error in ERRORS:
            only_row, only_other = int(line[f"{error}_only_row"]), int(line[f"{error}_only_other"])
            counts.setdefault((line["row"], line["other"], error), {})[line["seed"]] = (only_row, only_other)
            counts.setdefault((line["other"], line["row"], error), {})[line["seed"]] = (only_other, only_row)
    return ImageByImage(measured, counts)


def _read(path: Path, columns: list[str]) -> list[dict[Hashable, Any]]:
    try:
        frame = pd.read_csv(path, dtype={"row": str, "other": str, "seed": str}, keep_default_na=False, na_values=[""])
        frame = frame[columns]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())}); {AGAIN}") from None
    numbers = frame.drop(columns=["row", "other", "seed"], errors="ignore")
    if len(frame) and not all(pd.api.types.is_numeric_dtype(kind) for kind in numbers.dtypes):
        raise DataError(f"{path}: damaged (a value that is no number); {AGAIN}")
    frame["seed"] = frame["seed"].fillna("published")
    return frame.to_dict("records")


def require_fit(params: Params, compared: ImageByImage, errors: Errors, images: int) -> None:
    """Raise DataError (exit code 3) if what was counted contradicts `errors`, on so many images.

    Rows that have not run, or that params no longer have, are passed over.
    """
    for (row, _), values in compared.fidelity.items():
        if values.keys() != errors.get((row, "top1"), values).keys():
            raise DataError(
                f"{artefacts.comparison(params.experiment, 'fidelity')}: not of the seeds of {row}; {AGAIN}"
            )
    for (row, other, error), counts in compared.only_one_wrong.items():
        if (row, error) in errors and (other, error) in errors:
            ours, theirs = errors[row, error], errors[other, error]
            for seed, (only_row, only_other) in counts.items():
                difference = _of_seed(ours, seed) - _of_seed(theirs, seed)
                if not math.isclose(100 * (only_row - only_other) / images, difference, abs_tol=1e-4):  # or NaN
                    path = artefacts.comparison(params.experiment, "pairs")
                    raise DataError(f"{path}: not of the networks that {row} and {other} have now; {AGAIN}")


def _of_seed(errors: BySeed, seed: str) -> float:
    return errors.get(seed, errors.get("published", math.nan))
