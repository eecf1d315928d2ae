"""Which classes the networks of an experiment get wrong, from the confusions that `evaluate` counted."""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.rows import parse_model
from moonshine.report.rows import ResultRow

TITLE = "Errors by class"
CONFUSIONS_TITLE = "Most frequent confusions"
CONFUSION_HEADINGS = ["Class", "Prediction", "Images", "Share, %"]
MOST_LINES = 20
"""Classes in the table."""
MOST_DRAWN = 20
"""Classes in the picture of confusions."""
MOST_CONFUSIONS = 10
COLUMNS = ["seed", "label", "prediction", "images"]
OTHERS = ""
"""The prediction in a line for all mistakes that are not listed one by one."""


@dataclass(frozen=True)
class RowErrors:
    """The errors of one row: `confusions` has its label, prediction and number of images, the mean over the seeds."""

    row: ResultRow
    confusions: pd.DataFrame

    @cached_property
    def images(self) -> dict[str, float]:
        """Number of validation images by class, for the classes that have some, in the data set's order."""
        counts = self.confusions.groupby("label", sort=False)["images"].sum()
        return dict(zip(counts.index, counts.to_numpy().tolist()))

    @cached_property
    def errors(self) -> dict[str, float]:
        """Top-1 error by class, in per cent, the mean over the seeds."""
        right = self.confusions[self.confusions["label"] == self.confusions["prediction"]]
        found = dict(zip(right["label"], right["images"]))
        return {name: 100 * (1 - found.get(name, 0.0) / images) for name, images in self.images.items()}

    @property
    def balanced(self) -> float:
        """The mean of the classes' errors, in per cent."""
        return statistics.mean(self.errors.values())

    @property
    def mistakes(self) -> pd.DataFrame:
        """The confusions of different classes, with `share`, the per cent of the label's images; most images first."""
        named = self.confusions[self.confusions["prediction"] != OTHERS]
        wrong = named[named["label"] != named["prediction"]]
        wrong = wrong.assign(share=100 * wrong["images"] / wrong["label"].map(self.images))
        return wrong.sort_values("images", ascending=False, kind="stable")


@dataclass(frozen=True)
class ClassErrors:
    """The errors of the teacher and of the students whose attention is compared, as far as they have been counted."""

    rows: list[RowErrors]
    student: RowErrors
    """The distilled student, by whose errors classes are sorted; the last of `rows` if it has not been counted."""
    classes: int
    """In the data set, with those that have no validation images."""

    @property
    def worst(self) -> list[str]:
        """Classes with validation images, the student's largest error first."""
        return sorted(self.student.errors, key=lambda name: -round(self.student.errors[name], 6))

    @property
    def is_drawable(self) -> bool:
        """Whether a picture of all confusions would be legible."""
        return self.classes <= MOST_DRAWN

    def caption(self, name: Callable[[str], str] = str) -> str:
        """What the table shows; `name` formats titles for the page."""
        counted = len(self.student.errors)
        shown = f"; the {MOST_LINES} worst of {counted:,} are shown" if counted > MOST_LINES else ""
        empty = self.classes - counted
        without = f" {empty:,} of {self.classes:,} classes have no validation images." if empty else ""
        return (
            f"Top-1 error on the validation images of each class, in per cent{self._over_seeds}. The classes that "
            f"{name(self.student.row.title)} gets wrong most often come first{shown}. The balanced error is the mean "
            f"over all classes, so that rare classes count as much as frequent ones.{without}"
        )

    @property
    def headings(self) -> list[str]:
        return ["Class", "Images", *(each.row.title for each in self.rows)]

    @property
    def lines(self) -> Iterator[tuple[str, float, list[float]]]:
        """The worst classes: name, number of images, and the error of each row."""
        for name in self.worst[:MOST_LINES]:
            yield name, self.student.images[name], [each.errors[name] for each in self.rows]

    @property
    def last_line(self) -> tuple[str, float, list[float]]:
        return "Balanced error", sum(self.student.images.values()), [each.balanced for each in self.rows]

    def confusions_caption(self, name: Callable[[str], str] = str) -> str:
        """What the table of confusions shows; `name` formats titles for the page."""
        return (
            f"The mistakes that {name(self.student.row.title)} makes most often: the number of images"
            f"{self._over_seeds}, and their share of the validation images of the class."
        )

    @property
    def frequent_confusions(self) -> Iterator[tuple[str, str, float, float]]:
        """The most frequent mistakes, if there are too many classes for a picture: class, prediction, images, share."""
        shown = self.student.mistakes[: 0 if self.is_drawable else MOST_CONFUSIONS]
        yield from shown[["label", "prediction", "images", "share"]].itertuples(index=False, name=None)

    @property
    def _over_seeds(self) -> str:
        count = len(self.student.row.by_seed("top1"))
        return f", mean over {count} seeds" if count > 1 else ""


def read_class_errors(params: Params, rows: dict[str, ResultRow]) -> ClassErrors | None:
    """The confusions of the three rows whose models the page compares; None if none of them has been counted.

    Earlier versions did not count confusions, so that a row may be missing. Raises DataError (exit code 3) for a
    damaged file and for one that contradicts the row's metrics.
    """
    names = {role: parse_model(model)[0].name for role, model in params.shown_models.items()}
    found = dict[str, RowErrors]()
    for name in dict.fromkeys(names.values()):
        row = rows.get(name)  # the teacher may be of another experiment
        if row and row.metrics and (path := artefacts.confusion(params.experiment, row.row)).exists():
            found[name] = _read(path, row)
    if not found:
        return None
    student = found.get(names["distilled"]) or list(found.values())[-1]
    return ClassErrors(list(found.values()), student, params.dataset.classes)


def _read(path: Path, row: ResultRow) -> RowErrors:
    again = f"run `moonshine evaluate {row.name}`"
    try:
        text = dict.fromkeys(COLUMNS[:3], str)
        frame = pd.read_csv(path, dtype=text, keep_default_na=False)[COLUMNS]  # a class may be called "NA"
        frame["images"] = frame["images"].astype("int64")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())}); {again}") from None
    assert row.metrics is not None
    top1 = {seed if row.kind != "fetch" else "": error for seed, error in row.by_seed("top1").items()}
    images = frame.groupby("seed")["images"].sum().to_dict()
    right = frame[frame["label"] == frame["prediction"]].groupby("seed")["images"].sum().to_dict()
    count = row.metrics["n"]
    fits = images == dict.fromkeys(top1, count) and all(
        math.isclose(100 * (1 - right.get(seed, 0) / count), error, abs_tol=1e-4) for seed, error in top1.items()
    )
    if not fits:
        raise DataError(f"{path}: not of the same networks and images as the row's metrics; {again}")
    means = frame.groupby(["label", "prediction"], sort=False, as_index=False)["images"].sum()
    return RowErrors(row, means.assign(images=means["images"] / len(top1)))
