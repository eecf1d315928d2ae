"""Error against how much training one student gets: when does a teacher pay?"""

from typing import Any

import altair as alt
import pandas as pd

from moonshine.report.figures.encoding import Size, by_method, data, shown, span, ticked, tooltip
from moonshine.report.figures.labels import text_width
from moonshine.report.figures.measured import GREY, Measured
from moonshine.report.figures.scales import Scale
from moonshine.report.rows import ResultRow

MARGIN = 28
"""Pixels that are free around the marks."""


def points(measured: Measured) -> list[ResultRow]:
    """The rows of the sweep that have run."""
    return [row for row in measured.rows if measured.sweep and row.network in measured.sweep.values]


def error_against_training(measured: Measured, size: Size) -> Any:
    """A line per method over the numbers of training images or epochs, and the teacher's error as a level."""
    sweep = measured.sweep
    assert sweep is not None
    rows = points(measured)
    level = None if measured.teacher is None else measured.teacher_error
    x_scale = Scale.fitted([sweep.values[row.network] for row in rows], size.plot, (MARGIN, MARGIN), logarithmic=True)
    ends = [end for row in rows for end in span(row)]
    y_scale = Scale.fitted([*ends, *([] if level is None else [level])], size.height, (MARGIN, MARGIN))

    def values(row: ResultRow) -> dict[str, Any]:
        return {**shown(measured, row), "amount": sweep.values[row.network]}

    amounts = sorted({sweep.values[row.network] for row in rows})
    axis = alt.Axis(values=amounts, format=",d", grid=False, labelOverlap="greedy")
    x = alt.X("amount:Q", title=f"{'training ' if sweep.of == 'images' else ''}{sweep.of}", axis=axis)
    x = x.scale(type="log", domain=x_scale.domain, nice=False)
    y_axis = alt.Scale(domain=[max(y_scale.low, 0.0), y_scale.high], nice=False)
    y = alt.Y("error:Q", title="top-1 error, %", scale=y_axis, axis=alt.Axis(tickCount=7))
    colour, shape = by_method(alt.Color, measured, size, 0), by_method(alt.Shape, measured, size, 1)
    base = alt.Chart(data(pd.DataFrame(map(values, rows)))).transform_filter(ticked())
    layers = [
        base.mark_line(strokeWidth=1.6).encode(x, y, colour),
        base.mark_rule(strokeWidth=1.2).encode(x, alt.Y("low:Q", scale=y_axis, title=""), alt.Y2("high:Q"), colour),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            x, y, colour, shape, tooltip=tooltip(measured, alt.Tooltip("amount:Q", title=sweep.of, format=",d"))
        ),
    ]
    if level is not None:
        text = f"teacher: {level:.2f}"
        teacher = alt.Chart(data(pd.DataFrame({"error": [level], "text": [text]})))
        right = size.plot - text_width(text) / 2 - 2
        layers += [
            teacher.mark_rule(strokeDash=[5, 4], strokeWidth=1, color=GREY).encode(y),
            teacher.mark_text(dy=-8).encode(x=alt.value(right), y=y, text="text:N"),
        ]
    return alt.layer(*layers).properties(width=size.plot, height=size.height)
