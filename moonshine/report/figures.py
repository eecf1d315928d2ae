"""The figures of the results page, as files in light and dark. `FIGURES` names them in the order of the page."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from moonshine.drawing.style import KIND_NAMES, MARKERS, Theme, new_figure, render
from moonshine.params.schema import Recipe
from moonshine.project.rows import Row
from moonshine.report.curves import ATTENTION, attention_groups, over_seeds
from moonshine.report.rows import Count, ResultRow
from moonshine.report.tables import short_count
from moonshine.runtime import signals

COST_NAMES: dict[Count, str] = {
    "parameters": "parameters, with batch-norm statistics",
    "macs": "multiply-accumulates for one image",
}
ERROR_TICKS = [digit * decade for decade in (0.01, 0.1, 1, 10, 100) for digit in (1, 2, 5)]
DENSE_ERROR_TICKS = [digit * decade for decade in (0.01, 0.1, 1, 10, 100) for digit in (1, 1.5, 2, 3, 4, 5, 6, 7, 8)]
FEWEST_TICKS = 3
MOST_LABELS = 14
"""With more points only those of the Pareto front are labelled."""
PANELS_A_LINE = 4


@dataclass(frozen=True)
class Measured:
    """All that the figures of an experiment are drawn from."""

    rows: list[ResultRow]
    """Those that have run."""
    curves: dict[Row, pd.DataFrame]
    teacher: ResultRow | None
    teacher_seed: str | None
    """Of the trained model that taught; None for published weights."""
    recipe: Recipe

    def title(self, row: Row) -> str:
        return next((each.title for each in self.rows if each.row == row), row.name)

    @property
    def of_several_seeds(self) -> bool:
        return any(row.deviation("top1") is not None for row in self.rows)

    @property
    def teacher_error(self) -> float:
        """Top-1 error of the very model that taught."""
        assert self.teacher is not None
        errors = self.teacher.by_seed("top1")
        return errors[self.teacher_seed] if self.teacher_seed else self.teacher.mean("top1")

    @property
    def attention_curves(self) -> dict[Row, pd.DataFrame]:
        return {row: curve for row, curve in self.curves.items() if attention_groups(curve)}


def pareto_front(rows: Iterable[ResultRow], cost: Count) -> list[ResultRow]:
    """The rows than which no other is both cheaper, or as cheap, and better; cheapest first."""
    front: list[ResultRow] = []
    for row in sorted(rows, key=lambda row: (row.cost(cost), row.rank("top1"))):
        if not front or row.rank("top1") < front[-1].rank("top1"):
            front.append(row)
    return front


def error_against(cost: Count) -> Callable[[Measured, Theme], Figure]:
    def draw(measured: Measured, theme: Theme) -> Figure:
        figure = new_figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        front = pareto_front(measured.rows, cost)
        costs, errors = [row.cost(cost) for row in front], [row.mean("top1") for row in front]
        axes.step(costs, errors, where="post", color=theme.muted, linewidth=1, linestyle="--", zorder=1)
        for kind in MARKERS:
            rows = [row for row in measured.rows if row.kind == kind]
            axes.errorbar(
                [row.cost(cost) for row in rows],
                [row.mean("top1") for row in rows],
                _deviations(rows),
                fmt=MARKERS[kind],
                color=theme.kinds[kind],
                capsize=3,
                linewidth=1,
                markersize=6,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.14, y=0.14)
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
        axes.set(xlabel=COST_NAMES[cost], ylabel="top-1 error, %")
        kinds = [kind for kind in MARKERS if any(row.kind == kind for row in measured.rows)]
        handles = [_key(marker=MARKERS[k], color=theme.kinds[k], label=KIND_NAMES[k], linestyle="") for k in kinds]
        handles.append(_key(color=theme.muted, label="Pareto front", linestyle="--", linewidth=1))
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
        labelled = measured.rows if len(measured.rows) <= MOST_LABELS else front
        _label(axes, [(row.title, row.cost(cost), row.mean("top1")) for row in labelled], theme)
        return figure

    return draw


def training_curves(measured: Measured, theme: Theme) -> Figure:
    """A panel a row: training and validation error, means over seeds in bands from the least to the greatest."""
    figure, panels = _panels(len(measured.curves))
    for axes, (row, curve) in zip(panels, measured.curves.items()):
        colour = theme.kinds[row.stage]
        for column, line in (("train_top1", ":"), ("val_top1", "-")):
            _band(axes, over_seeds(curve, column), colour, line)
        _mark_steps(axes, measured.recipe, theme)
        axes.set_title(measured.title(row), parse_math=False)
    _error_scale(panels)
    _label_outer(figure, panels, "epoch", "top-1 error, %")
    handles = [
        _key(color=theme.ink, linestyle="-", label="validation"),
        _key(color=theme.ink, linestyle=":", label="training"),
    ]
    if measured.recipe.lr_steps:
        handles.append(_key(color=theme.muted, linewidth=0.8, linestyle=(0, (1, 2)), label="learning rate lowered"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


def attention_losses(measured: Measured, theme: Theme) -> Figure:
    """A panel a distilled row: the attention loss of each group over the epochs."""
    curves = measured.attention_curves
    figure, panels = _panels(len(curves))
    names: list[str] = []
    for axes, (row, curve) in zip(panels, curves.items()):
        for index, column in enumerate(attention_groups(curve)):
            _band(axes, over_seeds(curve, column), theme.groups[index % len(theme.groups)], "-")
            name = f"group {column.removeprefix(ATTENTION)}"
            names += [name] if name not in names else []
        _mark_steps(axes, measured.recipe, theme)
        axes.set_yscale("log")
        axes.set_title(measured.title(row), parse_math=False)
    _label_outer(figure, panels, "epoch", "attention loss of the group")
    handles = [_key(color=theme.groups[i % len(theme.groups)], label=name) for i, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


def gap_to_teacher(measured: Measured, theme: Theme) -> Figure:
    """A bar for each row's error minus the teacher's."""
    assert measured.teacher is not None
    rows = [row for row in reversed(measured.rows) if row.name != measured.teacher.name]
    figure = new_figure(figsize=(7.2, 0.34 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    gaps = [row.mean("top1") - measured.teacher_error for row in rows]
    bars = axes.barh(
        [row.title.replace("$", r"\$") for row in rows],  # no formulas
        gaps,
        xerr=_deviations(rows),
        color=[theme.kinds[row.kind] for row in rows],
        ecolor=theme.ink,
        error_kw={"linewidth": 0.8},
        capsize=2,
        height=0.62,
    )
    axes.bar_label(bars, [f"{gap:+.2f}".replace("-", "−") for gap in gaps], padding=4, fontsize=8.5, color=theme.ink)
    axes.axvline(0, color=theme.ink, linewidth=1)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    teacher = measured.teacher.title + (f" (seed {measured.teacher_seed})" if measured.teacher_seed else "")
    axes.set_xlabel(f"top-1 error minus that of the teacher, {teacher}, in percentage points", parse_math=False)
    kinds = [kind for kind in KIND_NAMES if any(row.kind == kind for row in rows)]
    handles = [Patch(color=theme.kinds[kind], label=KIND_NAMES[kind]) for kind in kinds]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


@dataclass(frozen=True)
class Drawing:
    """What a figure is called, what is said of it, also of the seeds where there are several, and how it is drawn."""

    title: str
    caption: str
    of_seeds: str
    draw: Callable[[Measured, Theme], Figure]

    def said(self, measured: Measured) -> str:
        return f"{self.caption} {self.of_seeds}" if measured.of_several_seeds else self.caption


FIGURES = {
    "error-against-parameters": Drawing(
        "Error against parameters",
        "Validation error over the size of the network. Nothing below the dashed Pareto front is both smaller and "
        "better.",
        "Bars are one standard deviation over seeds.",
        error_against("parameters"),
    ),
    "error-against-macs": Drawing(
        "Error against computation",
        "Validation error over the multiply-accumulates that one image costs, with the front as above.",
        "Bars are one standard deviation over seeds.",
        error_against("macs"),
    ),
    "gap-to-teacher": Drawing(
        "Gap to the teacher",
        "How much more often than the teacher each network errs, in percentage points.",
        "Thin lines are one standard deviation over seeds.",
        gap_to_teacher,
    ),
    "training-curves": Drawing(
        "Training",
        "Top-1 error over the epochs, on the validation images and on the augmented training images.",
        "Lines are means over seeds, in bands from the best seed to the worst.",
        training_curves,
    ),
    "attention-losses": Drawing(
        "Attention loss",
        "How far the student's attention maps are from the teacher's, for each group of blocks: the loss before it is "
        "weighted by beta, on the training images.",
        "Lines are means over seeds, in bands from the least to the greatest.",
        attention_losses,
    ),
}


def drawable(measured: Measured) -> list[str]:
    """Names of the figures for which there is something to draw."""
    needs = {
        "gap-to-teacher": measured.teacher is not None and len(measured.rows) > 1,
        "training-curves": bool(measured.curves),
        "attention-losses": bool(measured.attention_curves),
    }
    return [name for name in FIGURES if measured.rows and needs.get(name, True)]


def figure_files(measured: Measured) -> dict[str, bytes]:
    """Every figure in every format, by file name. Raises Interrupted if a stop was requested."""
    files: dict[str, bytes] = {}
    for name in drawable(measured):
        files.update(render(name, partial(_draw, name, measured)))
    return files


def _draw(name: str, measured: Measured, theme: Theme) -> Figure:
    signals.poll()  # here, for a figure of many panels takes seconds in each theme
    return FIGURES[name].draw(measured, theme)


def _key(**look: Any) -> Line2D:
    return Line2D([], [], **look)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels on common axes, several a line."""
    columns = min(count, PANELS_A_LINE)
    lines = math.ceil(count / columns)
    figure = new_figure(figsize=(max(2.3 * columns, 4.4), 2.0 * lines + 0.6), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    return figure, list(grid.flat[:count])


def _label_outer(figure: Figure, panels: Sequence[Axes], x: str, y: str) -> None:
    for index, axes in enumerate(panels):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        if index + PANELS_A_LINE >= len(panels):
            axes.tick_params(labelbottom=True)
    figure.supxlabel(x, fontsize=9.5)
    figure.supylabel(y, fontsize=9.5)


def _band(axes: Axes, values: pd.DataFrame, colour: str, line: str) -> None:
    axes.fill_between(values.index, values["min"], values["max"], color=colour, alpha=0.22, linewidth=0)
    if len(values) > 1:
        axes.plot(values.index, values["mean"], line, color=colour, linewidth=1.4)
    else:  # a line of one epoch is none
        axes.plot(
            values.index, values["mean"], "o", color=colour, markersize=4, fillstyle="full" if line == "-" else "none"
        )
        axes.set_xlim(values.index[0] - 1, values.index[0] + 1)


def _mark_steps(axes: Axes, recipe: Recipe, theme: Theme) -> None:
    for epoch in recipe.lr_steps:
        axes.axvline(epoch + 0.5, color=theme.muted, linewidth=0.8, linestyle=(0, (1, 2)))


def _error_scale(panels: Sequence[Axes]) -> None:
    """Logarithmic for all panels, unless there is no error at all, with labels that the errors lie between."""
    if not any(math.isfinite(axes.dataLim.minposy) for axes in panels):
        return
    for axes in panels:
        axes.set_yscale("log", nonpositive="clip")
    low, high = panels[0].get_ylim()
    few = sum(low <= tick <= high for tick in ERROR_TICKS) < FEWEST_TICKS
    for axes in panels:
        axes.yaxis.set_major_locator(FixedLocator(DENSE_ERROR_TICKS if few else ERROR_TICKS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())


def _deviations(rows: Iterable[ResultRow]) -> list[float]:
    """Over seeds; NaN, which draws no bar, for a single value."""
    return [math.nan if (deviation := row.deviation("top1")) is None else deviation for row in rows]


def _label(axes: Axes, points: list[tuple[str, float, float]], theme: Theme) -> None:
    """Names beside points, each where it hides the least of the others."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    anchors = [axes.transData.transform((x, y)) for _, x, y in points]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in anchors]
    for text, x, y in points:
        tried: list[tuple[float, int, Annotation, Bbox]] = []
        for dx, dy, across, up in _PLACES:
            label = axes.annotate(
                text,
                (x, y),
                (dx, dy),
                textcoords="offset points",
                ha=across,
                va=up,
                fontsize=8,
                color=theme.ink,
                parse_math=False,
            )
            box = label.get_window_extent()
            tried.append((_hidden(box, taken, axes.get_window_extent()), len(tried), label, box))
            label.remove()
        _, _, best, box = min(tried, key=lambda each: each[:2])
        axes.add_artist(best)
        taken.append(box)


_PLACES = [
    (dx, dy, across, up)
    for distance in (1, 2.2)
    for dx, dy, across, up in (
        (8, 3 * distance, "left", "bottom"),
        (8, -3 * distance, "left", "top"),
        (-8, 3 * distance, "right", "bottom"),
        (-8, -3 * distance, "right", "top"),
        (0, 8 * distance, "center", "bottom"),
        (0, -8 * distance, "center", "top"),
    )
]


def _hidden(box: Bbox, taken: list[Bbox], inside: Bbox) -> float:
    """Area that the box would share with others or have outside."""
    shared = sum(common.width * common.height for other in taken if (common := Bbox.intersection(box, other)))
    within = Bbox.intersection(box, inside)
    return shared + box.width * box.height - (within.width * within.height if within else 0.0)
