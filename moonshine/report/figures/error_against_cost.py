"""Error against what a network costs, or how long it takes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import altair as alt
import pandas as pd

from moonshine.report.figures.encoding import Size, by_method, data, shown, span, ticked, tooltip
from moonshine.report.figures.labels import Box, places
from moonshine.report.figures.measured import GREY, Measured
from moonshine.report.figures.scales import Scale
from moonshine.report.rows import Count, ResultRow

MARK = 11
"""Width and height of a point's mark, in pixels."""
ALL, ALONE, DISTILLED = "all", "without a teacher", "distilled"
DASHES: dict[str, list[float]] = {ALL: [5, 4], ALONE: [1.5, 3], DISTILLED: [5, 4]}
"""Front -> the pattern of its line, the same length drawn and left out by turns, in pixels."""


@dataclass(frozen=True)
class Cost:
    """What is on the horizontal axis: the axis's title, the tooltip's, the format of numbers there, and the values."""

    title: str
    name: str
    format: str
    of: Callable[[ResultRow], float]
    rows: Callable[[Measured], list[ResultRow]] = lambda measured: measured.rows
    """The rows that have a value."""
    ticks: str = "~s"
    """Format of the axis's numbers; by default with k, M and G."""
    is_cost: bool = True
    """Whether less is better, so that there is a Pareto front."""


def counted(count: Count, title: str) -> Cost:
    return Cost(title, count, ",d", lambda row: row.costs[count])


PARAMETERS = counted("parameters", "parameters, with batch-norm statistics")
MACS = counted("macs", "multiply-accumulates per image")


def latency_on(machine: str) -> Cost:
    return Cost(
        f"milliseconds on {machine}",
        "ms",
        ".3~g",
        lambda row: row.latencies[machine].float32,
        lambda measured: [row for row in measured.rows if machine in row.latencies],
        ".3~g",
    )


def potential_in(search: str) -> Cost:
    return Cost(
        f"Fisher potential in the search {search}",
        "potential",
        ".4~g",
        lambda row: row.potentials[search],
        lambda measured: measured.candidates[search],
        ".3~g",
        is_cost=False,
    )


def pareto_front(rows: Iterable[ResultRow], cost: Cost) -> list[ResultRow]:
    """The rows that no other row beats in error at the same or a lower cost; cheapest first."""
    front: list[ResultRow] = []
    for row in sorted(rows, key=lambda row: (cost.of(row), row.rank("top1"))):
        if not front or row.rank("top1") < front[-1].rank("top1"):
            front.append(row)
    return front


def pareto_fronts(rows: Iterable[ResultRow], cost: Cost) -> dict[str, list[ResultRow]]:
    """The fronts that are drawn, by name: that of all rows, or, to tell whether distilling moves it, two of them.

    There are two if networks without a teacher have a front of at least two of them, and distilled ones too.
    """
    known = list(rows)
    fronts = {name: pareto_front(_of_front(name, known), cost) for name in (ALONE, DISTILLED)}
    return fronts if all(len(front) > 1 for front in fronts.values()) else {ALL: pareto_front(known, cost)}


def _of_front(name: str, rows: list[ResultRow]) -> list[ResultRow]:
    """The rows among which the front is found."""
    return [row for row in rows if name == ALL or (row.kind == "distil") == (name == DISTILLED)]


def error_against(measured: Measured, size: Size, cost: Cost) -> Any:
    """One column of marks per network, at its cost, with one mark per method."""
    rows = cost.rows(measured)
    fronts = pareto_fronts(rows, cost) if cost.is_cost else {}
    methods = list(measured.looks)
    margin = max(24, 0.09 * size.plot, 9 * (len(methods) - 1) / 2 + MARK)
    x_scale = Scale.fitted([cost.of(row) for row in rows], size.plot, (margin, margin), logarithmic=True)
    y_scale = Scale.fitted([end for row in rows for end in _bar(row)], size.height, (34, 34))
    if y_scale.low < 0:  # an error cannot be negative; a mark at zero is drawn whole
        y_scale = Scale(-0.02 * y_scale.high, y_scale.high, size.height)

    def place(row: ResultRow) -> float:
        """Marks of one network are side by side around its cost."""
        own = sorted({methods.index(measured.method(each.row)) for each in rows if each.network == row.network})
        number = own.index(methods.index(measured.method(row.row)))
        return x_scale.pixel(cost.of(row)) + 9 * (number - (len(own) - 1) / 2)

    marks: dict[str, list[Box]] = {network: [] for network in dict.fromkeys(row.network for row in rows)}
    for row in rows:
        marks[row.network].append(Box.around(place(row), y_scale.pixel(row.mean("top1")), MARK, MARK))
        bar = [y_scale.pixel(end) for end in _bar(row)]
        marks[row.network].append(Box(place(row) - 1, bar[0] - 1, place(row) + 1, bar[1] + 1))
    for network, boxes in marks.items():  # and the link between them
        own = [row for row in rows if row.network == network]
        x_pixel = sum(place(row) for row in own) / len(own)
        boxes.append(Box(x_pixel, min(box.bottom for box in boxes), x_pixel + 1, max(box.top for box in boxes)))
    first = dict.fromkeys(row.network for row in (*chain.from_iterable(fronts.values()), *rows))
    titles = {measured.networks[network]: boxes for network, boxes in marks.items()}
    labels = places(titles, [measured.networks[network] for network in first], size.plot, size.height)

    def values(row: ResultRow) -> dict[str, Any]:
        label = labels.get(measured.networks[row.network])
        return {
            **shown(measured, row),
            **dict(zip(("low_end", "high_end"), _bar(row))),
            "x": x_scale.value(place(row)),
            "cost": cost.of(row),
            "label_x": label and x_scale.value(label[0]),
            "label_y": label and y_scale.value(label[1]),
        }

    frame = pd.DataFrame(map(values, rows))

    def line(name: str, front: list[ResultRow]) -> Any:
        """It steps down at the leftmost of a network's marks that it is for, so that none of them is below."""
        own = _of_front(name, rows)
        left = {row.network: min(place(each) for each in own if each.network == row.network) for row in front}
        steps = sorted((left[row.network], row.mean("top1")) for row in front)
        lowest = accumulate((error for _, error in steps), min)
        ends = pd.DataFrame(((x_scale.value(x), error) for (x, _), error in zip(steps, lowest)), columns=["x", "error"])
        chart = alt.Chart(data(ends, digits=9))
        return chart.mark_line(interpolate="step-after", strokeDash=DASHES[name], strokeWidth=1, color=GREY)

    x = alt.X("x:Q", title=cost.title, scale=alt.Scale(type="log", domain=x_scale.domain, nice=False))
    x = x.axis(values=x_scale.ticks(), format=cost.ticks, grid=False)
    y_axis = alt.Scale(domain=y_scale.domain, nice=False)
    y = alt.Y("error:Q", title="top-1 error, %", scale=y_axis, axis=alt.Axis(tickCount=7))
    colour, shape = by_method(alt.Color, measured, size, 0), by_method(alt.Shape, measured, size, 1)
    base = alt.Chart(data(frame, digits=9)).transform_filter(ticked())
    links = base.transform_aggregate(low="min(error)", high="max(error)", x="mean(x)", groupby=["network"])
    layers = [
        *(line(name, front).encode(x, y) for name, front in fronts.items()),
        links.mark_rule(strokeWidth=1, opacity=0.5).encode(x, alt.Y("low:Q", scale=y_axis, title=""), alt.Y2("high:Q")),
        base.mark_rule(strokeWidth=1.2).encode(
            x, alt.Y("low_end:Q", scale=y_axis, title=""), alt.Y2("high_end:Q"), colour
        ),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            x, y, colour, shape, tooltip=tooltip(measured, alt.Tooltip("cost:Q", title=cost.name, format=cost.format))
        ),
    ]
    if labels:
        texts = base.transform_filter("isValid(datum.label_x)")
        texts = texts.transform_aggregate(x="min(label_x)", error="min(label_y)", groupby=["network"])
        layers.append(texts.mark_text().encode(x, y, text="network:N"))
    return alt.layer(*layers).properties(width=size.plot, height=size.height)


def error_against_latency(measured: Measured, size: Size) -> Any:
    """On the first machine by name."""
    return error_against(measured, size, latency_on(measured.machines[0]))


def error_against_potential(measured: Measured, size: Size) -> Any:
    """In the first search with enough candidates."""
    return error_against(measured, size, potential_in(next(iter(measured.candidates))))


def _bar(row: ResultRow) -> tuple[float, float]:
    """The ends of a row's error bar, which a deviation cannot take beyond what an error can be."""
    low, high = span(row)
    return max(low, 0.0), min(high, 100.0)
