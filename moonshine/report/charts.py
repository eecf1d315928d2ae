"""The interactive charts of the HTML page, as Vega-Lite specifications made with Altair.

Each listens to the parameter `shown`, the titles of the rows that the reader has ticked; the colours read well on white
and on black, so that only the texts follow the theme.
"""

import math
from typing import Any, Literal, NamedTuple

import altair as alt
import pandas as pd

from moonshine.drawing.style import KIND_NAMES
from moonshine.report.curves import ATTENTION, attention_groups, over_seeds
from moonshine.report.figures import COST_NAMES, MOST_LABELS, Measured, drawable, pareto_front
from moonshine.report.rows import Count

GREY = "#7d8590"
KIND_COLOURS = {"fetch": GREY, "train": "#1f83c6", "distil": "#d36a00"}
COLOURS = ["#1f83c6", "#d36a00", "#0a9c74", "#b55fa0", "#8a8a1f", "#d1495b", "#7b6fd0", "#7d8590"]
KIND_SHAPES = {"fetch": "diamond", "train": "circle", "distil": "triangle-up"}
SOLID: Any = {"symbolType": "stroke", "symbolOpacity": 1, "symbolStrokeWidth": 3}
"""Keys of lines, which would else be as faint as the bands around them."""
HEIGHT = 340


class Place(NamedTuple):
    """Where a point's name stands: pixels to the right of the point and down, and which end is at it."""

    right: int
    down: int
    align: Literal["left", "center", "right"]


PLACES = [
    *(Place(9, down, "left") for down in (11, -7)),
    *(Place(-9, down, "right") for down in (11, -7)),
    *(Place(0, down, "center") for down in (20, -16)),
    *(Place(9, down, "left") for down in (24, -20)),
    *(Place(-9, down, "right") for down in (24, -20)),
]
LIKELY_WIDTH, LETTER_WIDTH, LINE_HEIGHT = 700, 6, 12
"""Pixels, for places of names; the page itself may be wider or narrower."""


def charts(measured: Measured) -> dict[str, dict[str, Any]]:
    """Name of the figure -> its specification, for every figure that can be drawn."""
    makers = {
        "error-against-parameters": lambda: _scatter(measured, "parameters"),
        "error-against-macs": lambda: _scatter(measured, "macs"),
        "gap-to-teacher": lambda: _gaps(measured),
        "training-curves": lambda: _curves(measured),
        "attention-losses": lambda: _attention(measured),
    }
    return {name: _with_choice(makers[name](), measured) for name in drawable(measured)}


def _with_choice(chart: Any, measured: Measured) -> dict[str, Any]:
    specification: dict[str, Any] = chart.properties(width="container").to_dict()
    titles = [row.title for row in measured.rows]
    specification["params"] = [{"name": "shown", "value": titles}, *specification.get("params", [])]
    return specification


def _data(frame: pd.DataFrame) -> alt.InlineData:
    """As CSV, a quarter of the size of a list of records."""
    return alt.InlineData(values=frame.to_csv(index=False, float_format="%.5g"), format=alt.CsvDataFormat(type="csv"))


def _ticked() -> str:
    return "indexof(shown, datum.row) >= 0"


def _by_kind(channel: Any, measured: Measured, looks: dict[str, str], **options: Any) -> Any:
    """A channel that tells published, trained and distilled rows apart, of which only those present have a key."""
    kinds = [kind for kind in KIND_NAMES if any(row.kind == kind for row in measured.rows)]
    scale = alt.Scale(domain=[KIND_NAMES[kind] for kind in kinds], range=[looks[kind] for kind in kinds])
    return channel("kind:N", scale=scale, title=None, **options)


def _scatter(measured: Measured, cost: Count) -> Any:
    frame = pd.DataFrame(
        {
            "row": row.title,
            "kind": KIND_NAMES[row.kind],
            "cost": row.cost(cost),
            "error": row.mean("top1"),
            "low": row.mean("top1") - (row.deviation("top1") or 0.0),
            "high": row.mean("top1") + (row.deviation("top1") or 0.0),
            "place": place,
        }
        for row, place in zip(measured.rows, _places(measured, cost))
    )
    front = pd.DataFrame(
        {"cost": row.cost(cost), "error": row.mean("top1")} for row in pareto_front(measured.rows, cost)
    )
    x = alt.X("cost:Q", title=COST_NAMES[cost], scale=alt.Scale(type="log", nice=False, padding=40))
    x = x.axis(format="~s", tickCount=5)
    near = alt.Scale(zero=False)  # rows often differ by little
    y = alt.Y("error:Q", title="top-1 error, %", scale=near)
    tooltip = [
        alt.Tooltip("row:N", title="model"),
        alt.Tooltip("error:Q", title="top-1 error, %", format=".2f"),
        alt.Tooltip("low:Q", title="minus one deviation", format=".2f"),
        alt.Tooltip("high:Q", title="plus one deviation", format=".2f"),
        alt.Tooltip("cost:Q", title=cost, format=",d"),
    ]
    base = alt.Chart(_data(frame)).transform_filter(_ticked())
    colour, shape = (_by_kind(alt.Color, measured, KIND_COLOURS), _by_kind(alt.Shape, measured, KIND_SHAPES))
    line = alt.Chart(_data(front)).mark_line(interpolate="step-after", strokeDash=[5, 4], strokeWidth=1, color=GREY)
    bars = base.mark_rule(strokeWidth=1.2).encode(x, alt.Y("low:Q", scale=near), alt.Y2("high:Q"), colour)
    points = base.mark_point(filled=True, size=110, opacity=1).encode(x, y, colour, shape, tooltip=tooltip)
    texts = [
        base.transform_filter(f"datum.place == {number}")
        .mark_text(align=place.align, dx=place.right, dy=place.down, fontSize=11)
        .encode(x, y, text="row:N")
        for number, place in enumerate(PLACES)
        if number in set(frame["place"])
    ]
    layers = [line.encode(x, y), bars, points, *(texts if len(measured.rows) <= MOST_LABELS else [])]
    return alt.layer(*layers).properties(height=HEIGHT)


def _places(measured: Measured, cost: Count) -> list[int]:
    """For each row the place of PLACES where its name hides the least of points and of other names."""
    rows = measured.rows
    xs = _scaled([math.log(row.cost(cost)) for row in rows], LIKELY_WIDTH)
    ys = _scaled([-row.mean("top1") for row in rows], HEIGHT)
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in zip(xs, ys)]
    places = []
    for row, x, y in zip(rows, xs, ys):
        boxes = [_box(place, x, y, LETTER_WIDTH * len(row.title)) for place in PLACES]
        hidden = [sum(_shared(box, other) for other in taken) + _outside(box) for box in boxes]
        places.append(hidden.index(min(hidden)))
        taken.append(boxes[places[-1]])
    return places


Box = tuple[float, float, float, float]
"""left, top, right, bottom."""


def _scaled(values: list[float], length: float) -> list[float]:
    """To pixels from 0 to `length`; 40 stay free at both ends, as on the charts' axis of costs."""
    least, most = min(values), max(values)
    return [40 + (length - 80) * (value - least) / ((most - least) or 1) for value in values]


def _box(place: Place, x: float, y: float, width: float) -> Box:
    left = x + place.right - {"left": 0.0, "center": width / 2, "right": width}[place.align]
    return left, y + place.down - LINE_HEIGHT / 2, left + width, y + place.down + LINE_HEIGHT / 2


def _shared(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _outside(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _shared(box, (0, 0, LIKELY_WIDTH, HEIGHT))


def _gaps(measured: Measured) -> Any:
    assert measured.teacher is not None
    frame = pd.DataFrame(
        {
            "row": row.title,
            "kind": KIND_NAMES[row.kind],
            "gap": row.mean("top1") - measured.teacher_error,
            "error": row.mean("top1"),
            "low": row.mean("top1") - measured.teacher_error - (row.deviation("top1") or 0.0),
            "high": row.mean("top1") - measured.teacher_error + (row.deviation("top1") or 0.0),
        }
        for row in measured.rows
        if row.name != measured.teacher.name
    )
    x = alt.X("gap:Q", title="top-1 error minus the teacher's, in percentage points", axis=alt.Axis(tickCount=8))
    y = alt.Y("row:N", sort=None, title=None, axis=alt.Axis(labelLimit=220))
    tooltip = [
        alt.Tooltip("row:N", title="model"),
        alt.Tooltip("gap:Q", title="gap", format="+.2f"),
        alt.Tooltip("low:Q", title="minus one deviation", format="+.2f"),
        alt.Tooltip("high:Q", title="plus one deviation", format="+.2f"),
        alt.Tooltip("error:Q", title="top-1 error, %", format=".2f"),
    ]
    base = alt.Chart(_data(frame)).transform_filter(_ticked())
    colour = _by_kind(alt.Color, measured, KIND_COLOURS)
    bars = base.mark_bar(height={"band": 0.7}).encode(x, y, colour, tooltip=tooltip)
    lines = base.mark_rule(strokeWidth=1.2, color=GREY).encode(alt.X("low:Q"), alt.X2("high:Q"), y)
    return alt.layer(bars, *([lines] if measured.of_several_seeds else [])).properties(height=26 * len(frame))


def _curves(measured: Measured) -> Any:
    columns = {"val_top1": "validation images", "train_top1": "training images"}
    frames = [
        over_seeds(curve, column)
        .reset_index()
        .assign(row=measured.title(row), kind=KIND_NAMES[row.stage], images=images)
        for row, curve in measured.curves.items()
        for column, images in columns.items()
    ]
    frame = pd.concat(frames, ignore_index=True)
    x = _epochs(measured)
    y = alt.Y("mean:Q", title="top-1 error, %", scale=alt.Scale(type="symlog", constant=2))
    y = y.axis(values=[0, 1, 2, 5, 10, 20, 50, 100])
    tooltip = [
        alt.Tooltip("row:N", title="model"),
        alt.Tooltip("images:N", title="on"),
        alt.Tooltip("epoch:Q", title="epoch"),
        alt.Tooltip("mean:Q", title="top-1 error, %", format=".2f"),
        alt.Tooltip("min:Q", title="best seed", format=".2f"),
        alt.Tooltip("max:Q", title="worst seed", format=".2f"),
    ]
    base = alt.Chart(_data(frame)).transform_filter(_ticked()).transform_filter("datum.images == images")
    hovered = alt.selection_point(name="hovered", fields=["row"], on="pointerover", nearest=True, clear="pointerout")
    colour = _by_kind(alt.Color, measured, KIND_COLOURS)
    if len(measured.curves) <= len(COLOURS):
        titles = [measured.title(row) for row in measured.curves]
        scale = alt.Scale(domain=titles, range=COLOURS[: len(titles)])
        colour = alt.Color("row:N", scale=scale, title=None, legend=alt.Legend(columns=4, labelLimit=180, **SOLID))
    band = base.mark_area(opacity=0.12).encode(x, alt.Y("min:Q"), alt.Y2("max:Q"), colour, alt.Detail("row:N"))
    thick = alt.condition(hovered, alt.value(3), alt.value(1.6), empty=False)
    lines = _line(base, measured).encode(x, y, colour, alt.Detail("row:N"), strokeWidth=thick)
    points = base.mark_point(opacity=0, size=60).encode(x, y, tooltip=tooltip).add_params(hovered)
    layers = [*_lr_steps(measured), band, lines, points]
    return alt.layer(*layers).add_params(alt.param(name="images", value="validation images")).properties(height=HEIGHT)


def _epochs(measured: Measured) -> alt.X:
    scale = alt.Scale(domain=[1, max(measured.recipe.epochs, 2)], nice=False)
    return alt.X("epoch:Q", title="epoch", scale=scale, axis=alt.Axis(format="d", tickMinStep=1, grid=False))


def _line(base: alt.Chart, measured: Measured) -> alt.Chart:
    """Of a single epoch a point."""
    return base.mark_line() if measured.recipe.epochs > 1 else base.mark_line(point=True)


def _lr_steps(measured: Measured) -> list[Any]:
    """Where the learning rate was lowered."""
    frame = pd.DataFrame({"epoch": [step + 0.5 for step in measured.recipe.lr_steps]})
    marks = alt.Chart(_data(frame)).mark_rule(strokeDash=[2, 3], color=GREY)
    return [marks.encode(_epochs(measured))] if len(frame) else []


def _attention(measured: Measured) -> Any:
    frames = [
        over_seeds(curve, column)
        .reset_index()
        .assign(row=measured.title(row), group=f"group {column.removeprefix(ATTENTION)}")
        for row, curve in measured.attention_curves.items()
        for column in attention_groups(curve)
    ]
    frame = pd.concat(frames, ignore_index=True)
    x = _epochs(measured)
    y = alt.Y("mean:Q", title="attention loss of the group", scale=alt.Scale(type="log"))
    y = y.axis(format="~g", tickCount=5)
    colour = alt.Color("group:N", scale=alt.Scale(range=COLOURS), title=None, legend=alt.Legend(**SOLID))
    tooltip = [
        alt.Tooltip("row:N", title="model"),
        alt.Tooltip("group:N"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("mean:Q", title="loss", format=".3g"),
    ]
    base = alt.Chart(_data(frame)).transform_filter("datum.row == student")
    band = base.mark_area(opacity=0.16).encode(x, alt.Y("min:Q"), alt.Y2("max:Q"), colour)
    lines = _line(base, measured).encode(x, y, colour)
    points = base.mark_point(opacity=0, size=60).encode(x, y, tooltip=tooltip)
    chosen = alt.param(name="student", value=measured.title(next(iter(measured.attention_curves))))
    return alt.layer(*_lr_steps(measured), band, lines, points).add_params(chosen).properties(height=HEIGHT)
