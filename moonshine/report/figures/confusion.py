"""Which classes a row's networks mistake for which."""

from typing import Any

import altair as alt

from moonshine.report.figures.encoding import Size, data
from moonshine.report.figures.labels import text_width
from moonshine.report.figures.measured import GREY, Measured

WRONG = "#d36a00"
SMALLEST, LARGEST = 11, 34
"""Side of a cell, in pixels."""
LONGEST_LABEL = 160
"""Pixels; Vega would write the title of an axis over longer ones."""
WITH_NUMBERS = 24
"""The side from which a cell has room for a number."""


def confusion(measured: Measured, size: Size) -> Any:
    """A cell per pair of classes: the label's row, the prediction's column, the share of the label's images."""
    assert measured.class_errors is not None
    student = measured.class_errors.student
    images = student.images
    names = list(dict.fromkeys([*images, *student.confusions["prediction"]]))
    longest = min(size.names, LONGEST_LABEL)
    widest = min(max(map(text_width, names)), longest)
    side = min(max((size.plot - widest) / len(names), SMALLEST), LARGEST)
    counted = student.confusions
    frame = counted.assign(share=100 * counted["images"] / counted["label"].map(images))
    frame["text"] = [f"{share:.0f}" if share >= 0.5 else "" for share in frame["share"]]
    labels = alt.Axis(labelLimit=longest, labelFontSize=min(11, side - 1), grid=False, labelOverlap=False)
    is_narrow = widest < side - 4
    across = labels.copy()
    across.orient, across.labelAngle = "top", 0 if is_narrow else -90
    scale = alt.Scale(domain=names)
    y = alt.Y("label:N", scale=scale, sort=None, title="class", axis=labels)
    x = alt.X("prediction:N", scale=scale, sort=None, title="prediction", axis=across)
    most = max([1.0, *student.mistakes["share"]])
    has_numbers = side >= WITH_NUMBERS
    legend = alt.Legend(title="share of the class, %", direction="horizontal", tickCount=3, format=".3~g")
    legend.symbolType, legend.symbolFillColor, legend.symbolStrokeColor = "square", WRONG, WRONG
    scale_of_shares = alt.Scale(domain=[0, most], range=[0.08, 0.75], nice=False)
    opacity = alt.Opacity("share:Q", scale=scale_of_shares, legend=None if has_numbers else legend)
    tooltip = [
        alt.Tooltip("label:N", title="class"),
        alt.Tooltip("prediction:N"),
        alt.Tooltip("images:Q", title="images, mean over seeds", format=".1f"),
        alt.Tooltip("share:Q", title="share of the class, %", format=".1f"),
    ]
    base = alt.Chart(data(frame)).encode(x, y)
    wrong = base.transform_filter("datum.label != datum.prediction").mark_rect(color=WRONG)
    right = base.transform_filter("datum.label == datum.prediction").mark_rect(color=GREY, opacity=0.25)
    layers = [right.encode(tooltip=tooltip), wrong.encode(opacity, tooltip=tooltip)]
    if has_numbers:
        layers.append(base.mark_text().encode(text="text:N"))
    return alt.layer(*layers).properties(width=side * len(names), height=side * len(names))
