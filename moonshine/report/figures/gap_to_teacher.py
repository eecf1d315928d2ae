"""How far each row is from its teacher."""

from typing import Any

import altair as alt
import pandas as pd

from moonshine.report.comparison import signed
from moonshine.report.figures.encoding import Size, by_method, data, shown, span, ticked, tooltip
from moonshine.report.figures.labels import LINE_HEIGHT, text_width, wrapped
from moonshine.report.figures.measured import Measured
from moonshine.report.figures.scales import Scale
from moonshine.report.rows import ResultRow


def gap_to_teacher(measured: Measured, size: Size) -> Any:
    """A bar per row: its error minus the teacher's."""
    assert measured.teacher is not None
    rows = [row for row in measured.by_network if row.name != measured.teacher.name]
    error = measured.teacher_error

    def values(row: ResultRow) -> dict[str, Any]:
        gap = row.mean("top1") - error
        low, high = (end - error for end in span(row))
        text = signed(gap)
        end = max(high, 0.0) if gap >= 0 else min(low, 0.0)
        lines = "\n".join(wrapped(row.title, size.names))
        return {**shown(measured, row), "lines": lines, "gap": gap, "low": low, "high": high, "end": end, "text": text}

    frame = pd.DataFrame(map(values, rows))
    room = text_width("+00.00") + 8
    ends = [0.0, *frame["low"], *frame["high"]]
    length = size.plot - size.names
    scale = Scale.fitted(ends, length, (room if min(frame["gap"]) < 0 else 8, room))
    who = measured.teacher.title + (f", seed {measured.teacher_seed}" if measured.teacher_seed else "")
    title = f"top-1 error minus that of the teacher ({who}: {error:.2f} %), in percentage points"
    x_axis = alt.Axis(tickCount=max(length // 70, 3), title=wrapped(title, length))
    x = alt.X("gap:Q", scale=alt.Scale(domain=scale.domain, nice=False), axis=x_axis)
    y = alt.Y("lines:N", sort=None, title=None, axis=alt.Axis(labels=False, grid=False))
    base = alt.Chart(data(frame)).transform_filter(ticked())
    colour = by_method(alt.Color, measured, size, 0)
    layers = [base.mark_bar(height={"band": 0.72}).encode(x, y, colour, tooltip=tooltip(measured, gap=True))]
    if measured.of_several_seeds:
        layers.append(base.mark_rule(strokeWidth=1.2).encode(alt.X("low:Q", title=""), alt.X2("high:Q"), y))
    layers.append(alt.Chart(data(pd.DataFrame({"gap": [0.0]}))).mark_rule().encode(x))
    texts = (
        base.transform_filter("datum.gap >= 0").mark_text(align="left", dx=5),
        base.transform_filter("datum.gap < 0").mark_text(align="right", dx=-5),
    )
    layers += [text.encode(alt.X("end:Q", title=""), y, text="text:N") for text in texts]
    up = (
        f"-{(LINE_HEIGHT - 2) / 2} * (length(split(datum.lines, '\\n')) - 1)"  # Vega's axes centre the first line alone
    )
    names = base.mark_text(align="right", lineBreak="\n", lineHeight=LINE_HEIGHT - 2, dy=alt.expr(up))
    layers.append(names.encode(x=alt.value(-8), y=y, text="lines:N"))
    most = max(lines.count("\n") for lines in frame["lines"]) + 1
    step = alt.Step(max(22, (LINE_HEIGHT - 2) * most + 6))
    return alt.layer(*layers).properties(width=length, height=step)
