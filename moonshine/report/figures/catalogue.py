"""The figures of the results page, each defined once: Vega-Lite made with Altair, for the web page and for files.

The web page shows the networks and methods that its reader has ticked, through the parameters `networks` and
`methods`; the colours of marks read well on white and on black, so only text follows the theme.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from moonshine.report.figures.confusion import confusion
from moonshine.report.figures.encoding import FILES, Size
from moonshine.report.figures.epoch_panels import attention_losses, losses_of_logits, training_curves
from moonshine.report.figures.error_against_cost import (
    ALL,
    MACS,
    PARAMETERS,
    Cost,
    error_against,
    error_against_latency,
    error_against_potential,
    latency_on,
    pareto_fronts,
)
from moonshine.report.figures.error_against_training import error_against_training, points
from moonshine.report.figures.gap_to_teacher import gap_to_teacher
from moonshine.report.figures.measured import Measured
from moonshine.report.figures.rendering import render
from moonshine.runtime import signals

CONFUSION = "confusion"
"""The figure that the pages show with the errors by class, not with the others."""


@dataclass(frozen=True)
class Drawing:
    """A figure's title, its caption, what is added to it if there are several seeds, and its specification."""

    title: str
    caption: Callable[[Measured], str]
    of_seeds: str
    make: Callable[[Measured, Size], Any]

    def said(self, measured: Measured) -> str:
        caption = self.caption(measured)
        return f"{caption} {self.of_seeds}" if measured.of_several_seeds else caption

    def specification(self, measured: Measured, size: Size) -> dict[str, Any]:
        content: dict[str, Any] = self.make(measured, size).to_dict()
        content.pop("config", None)
        chosen = {"networks": list(measured.networks.values()), "methods": list(measured.looks)}
        shown = [{"name": name, "value": values} for name, values in chosen.items()]
        return {**content, "params": [*shown, *content.get("params", [])]}


def _against_cost(measured: Measured, of: str, cost: Cost) -> str:
    said = f"Validation error against {of}, one mark per network and training method"
    if len(measured.looks) > 1:
        said += "; the marks of one network are side by side"
    fronts = pareto_fronts(cost.rows(measured), cost)
    if len(fronts) > 1:
        said += (
            ". The lines are Pareto fronts, dotted of networks without a teacher and dashed of distilled ones: of each "
            "kind, no network is below its line, that is, both cheaper and better"
        )
    elif len(fronts[ALL]) > 1:
        said += ". No network is below the dashed line, the Pareto front: none is both cheaper and better"
    return f"{said}."


def _against_latency(measured: Measured) -> str:
    cost = latency_on(measured.machines[0])
    file = cost.rows(measured)[0].latencies[measured.machines[0]].file
    return f"{_against_cost(measured, 'latency', cost)} Latency on {file.description}."


def _against_potential(measured: Measured) -> str:
    search, rows = next(iter(measured.candidates.items()))
    correlations = "; ".join(
        f"{method}, {correlation.networks} networks: {correlation}"
        for method, correlation in measured.rank_correlations(search, rows).items()
    )
    return (
        f"Validation error against the Fisher potential that networks had in the search {search}, before any training. "
        f"Spearman's rank correlation of potential and top-1 error: {correlations}."
    )


def _against_training(measured: Measured) -> str:
    assert measured.sweep is not None
    level = "" if measured.teacher is None else " The dashed line is the teacher's error."
    return (
        f"Validation error of networks of one architecture that had {measured.sweep.in_words}, one line per training "
        f"method.{level}"
    )


def _training(measured: Measured) -> str:
    drops = "Vertical lines are drops of the learning rate. " if measured.lr_steps else ""
    return (
        "Top-1 error by epoch on the validation images (solid) and on the augmented training images (dotted). "
        f"{drops}The vertical axis is fitted to the last three quarters of the epochs."
    )


def _confusion(measured: Measured) -> str:
    assert measured.class_errors is not None
    return (
        f"What {measured.class_errors.student.row.title} takes the images of each class for, as a share of the class's "
        "validation images: right in grey, wrong in orange."
    )


FIGURES = {
    "error-against-parameters": Drawing(
        "Error against parameters",
        partial(_against_cost, of="size", cost=PARAMETERS),
        "Bars are one standard deviation over seeds.",
        partial(error_against, cost=PARAMETERS),
    ),
    "error-against-macs": Drawing(
        "Error against computation",
        partial(_against_cost, of="multiply-accumulates per image", cost=MACS),
        "Bars are one standard deviation over seeds.",
        partial(error_against, cost=MACS),
    ),
    "error-against-latency": Drawing(
        "Error against latency",
        _against_latency,
        "Bars are one standard deviation over seeds.",
        error_against_latency,
    ),
    "error-against-potential": Drawing(
        "Error against potential",
        _against_potential,
        "Bars are one standard deviation over seeds.",
        error_against_potential,
    ),
    "error-against-images": Drawing(
        "Error against training images",
        _against_training,
        "Bars are one standard deviation over seeds.",
        error_against_training,
    ),
    "error-against-epochs": Drawing(
        "Error against epochs",
        _against_training,
        "Bars are one standard deviation over seeds.",
        error_against_training,
    ),
    "gap-to-teacher": Drawing(
        "Gap to the teacher",
        lambda measured: "Top-1 error of each network minus the teacher's, in percentage points.",
        "Thin lines are one standard deviation over seeds.",
        gap_to_teacher,
    ),
    "training-curves": Drawing(
        "Training",
        _training,
        "Lines are means over seeds; bands reach from the best seed to the worst.",
        training_curves,
    ),
    "attention-losses": Drawing(
        "Attention loss",
        lambda measured: (
            "How far the student's attention maps are from the teacher's after each group of blocks, on the training "
            "images: the loss before it is weighted by beta."
        ),
        "Lines are means over seeds; bands reach from the smallest value to the largest.",
        attention_losses,
    ),
    "logit-losses": Drawing(
        "Losses that compare logits",
        lambda measured: (
            "How far the student's logits are from the teacher's by each loss that its method adds, on the training "
            "images and before the loss is weighted. Losses of different kinds have different scales."
        ),
        "Lines are means over seeds; bands reach from the smallest value to the largest.",
        losses_of_logits,
    ),
    CONFUSION: Drawing(
        "Confusions",
        _confusion,
        "Shares are means over seeds.",
        confusion,
    ),
}


def drawable(measured: Measured) -> list[str]:
    """Names of the figures for which there is something to draw. A single epoch makes no curve."""
    swept = {row.network for row in points(measured)}
    teacher = {measured.teacher.network} if measured.teacher else set()
    costs_differ = not swept or bool({row.network for row in measured.rows} - swept - teacher)
    amount = measured.sweep.of if measured.sweep and len(swept) > 1 else None
    needs = {
        "error-against-parameters": costs_differ,
        "error-against-macs": costs_differ,
        "error-against-latency": costs_differ and bool(measured.machines),
        "error-against-potential": bool(measured.candidates),
        **{f"error-against-{of}": of == amount for of in ("images", "epochs")},
        "gap-to-teacher": measured.teacher is not None and len(measured.rows) > 1,
        "training-curves": measured.epochs > 1,
        "attention-losses": bool(measured.attention_curves) and measured.epochs > 1,
        "logit-losses": bool(measured.logit_curves) and measured.epochs > 1,
        CONFUSION: measured.class_errors is not None and measured.class_errors.is_drawable,
    }
    return [name for name in FIGURES if measured.rows and needs.get(name, True)]


def figure_files(measured: Measured) -> dict[str, bytes]:
    """Every figure in every format, by file name. Raises Interrupted if a stop was requested."""
    files: dict[str, bytes] = {}
    for name in drawable(measured):
        signals.poll()  # here, because a figure with many panels takes seconds
        files.update(render(name, FIGURES[name].specification(measured, FILES)))
    return files
