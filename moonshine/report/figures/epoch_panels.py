"""What happened over the epochs, in small panels."""

from typing import Any

import altair as alt
import pandas as pd

from moonshine.project.rows import Row
from moonshine.report.curves import ATTENTION, LOGIT_LOSSES, attention_groups, logit_losses, over_seeds
from moonshine.report.figures.encoding import Size, by_method, columns, data, ticked
from moonshine.report.figures.labels import wrapped
from moonshine.report.figures.measured import COLOURS, Measured
from moonshine.report.figures.scales import Scale

GROUP_COLOURS = ["#1f83c6", "#0a9c74", "#d36a00", "#b55fa0"]
MOST_EPOCHS, MOST_HOVERED = 100, 25
"""How many points of a curve are drawn, and how many can be hovered over."""
LAST_EPOCHS = 0.75
"""The share of a row's epochs, counted from the end, to which the axes of training curves are fitted."""


def training_curves(measured: Measured, size: Size) -> Any:
    """One panel per network: validation and training error of each method, means over seeds in bands from the
    smallest to the largest."""
    on = {"val_top1": "validation images", "train_top1": "training images"}
    frames = [
        over_seeds(curve, column)
        .reset_index()
        .assign(row=measured.titles[row], network=measured.networks[row.network], method=measured.method(row), on=name)
        for row, curve in measured.curves.items()
        for column, name in on.items()
    ]
    frame = pd.concat(frames, ignore_index=True)
    last = frame.groupby("row")["epoch"].transform("max")
    scale = _fitted(frame[frame["epoch"] > last - LAST_EPOCHS * last])
    y = _logarithmic("mean", "top-1 error, %", scale)
    tooltip = [
        alt.Tooltip("row:N", title="model"),
        alt.Tooltip("on:N"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("error:Q", title="top-1 error, %", format=".2f"),
        alt.Tooltip("best:Q", title="best seed", format=".2f"),
        alt.Tooltip("worst:Q", title="worst seed", format=".2f"),
    ]
    base = alt.Chart().transform_filter("on == 'both' || datum.on == on")
    base = _drawn(base, scale, error="mean", best="min", worst="max")
    colour = by_method(alt.Color, measured, size, 0, symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1)
    dash_legend = alt.Legend(symbolType="stroke", symbolStrokeWidth=2, columns=columns(on.values(), size))
    dash = alt.StrokeDash("on:N", title=None, legend=dash_legend)
    dash = dash.scale(domain=list(on.values()), range=[[1, 0], [3, 3]])
    return _curve_panels(
        measured, size, frame, base, y, colour, tooltip, panel=("network", list(measured.networks.values())), dash=dash
    ).add_params(alt.param(name="on", value="both"))


def attention_losses(measured: Measured, size: Size) -> Any:
    """One panel per distilled row: the attention loss of each group over the epochs."""
    curves = measured.attention_curves
    groups = sorted({group for curve in curves.values() for group in attention_groups(curve)}, key=_number)
    names = {group: f"group {_number(group)}" for group in groups}
    colours = [GROUP_COLOURS[number % len(GROUP_COLOURS)] for number in range(len(names))]
    return _loss_panels(measured, size, curves, "group", names, colours, "attention loss")


def _number(group: str) -> int:
    return int(group.removeprefix(ATTENTION))


def losses_of_logits(measured: Measured, size: Size) -> Any:
    """One panel per distilled row: each loss that compares logits over the epochs."""
    curves = measured.logit_curves
    present = {column for curve in curves.values() for column in logit_losses(curve)}
    names = {column: name for column, name in LOGIT_LOSSES.items() if column in present}
    return _loss_panels(measured, size, curves, "part", names, COLOURS[: len(names)], "loss")


def _loss_panels(
    measured: Measured,
    size: Size,
    curves: dict[Row, pd.DataFrame],
    kind: str,
    names: dict[str, str],
    colours: list[str],
    title: str,
) -> Any:
    """One panel per curve, with a line for each of its columns in `names`; `kind` is the field of their names."""
    frames = [
        over_seeds(curve, column)
        .reset_index()
        .assign(
            row=measured.titles[row],
            network=measured.networks[row.network],
            method=measured.method(row),
            **{kind: names[column]},
        )
        for row, curve in curves.items()
        for column in names
        if column in curve.columns
    ]
    frame = pd.concat(frames, ignore_index=True)
    scale = _fitted(frame)
    y = _logarithmic("mean", title, scale)
    shown = list(names.values())
    legend = alt.Legend(symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1, columns=columns(shown, size))
    colour = alt.Color(f"{kind}:N", scale=alt.Scale(domain=shown, range=colours), title=None, legend=legend)
    tooltip = [
        alt.Tooltip("row:N", title="model"),
        alt.Tooltip(f"{kind}:N"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("loss:Q", format=".3g"),
    ]
    base = _drawn(alt.Chart(), scale, loss="mean")
    titles = [measured.titles[row] for row in curves]
    return _curve_panels(measured, size, frame, base, y, colour, tooltip, panel=("row", titles))


def _curve_panels(
    measured: Measured,
    size: Size,
    frame: pd.DataFrame,
    base: Any,
    y: alt.Y,
    colour: Any,
    tooltip: list[alt.Tooltip],
    panel: tuple[str, list[str]],
    dash: alt.StrokeDash | None = None,
) -> Any:
    """Lines over the epochs in bands over the seeds, one panel per value of a column."""
    epochs = measured.epochs
    ticks = alt.Axis(format="d", grid=False, tickCount=min(max(size.panel // 40, 3), epochs - 1))
    x = alt.X("epoch:Q", title="epoch", scale=alt.Scale(domain=[1, epochs], nice=False), axis=ticks)
    dashes = [] if dash is None else [dash]
    several = [alt.Detail("on:N")] if dash is not None else []
    layers = [
        base.transform_aggregate(count="count()")
        .transform_calculate(epoch=f"{step + 0.5}")
        .mark_rule(strokeDash=[1, 3])
        .encode(x)
        for step in measured.lr_steps
    ]
    if measured.of_several_seeds:
        band = base.mark_area(opacity=0.18, clip=True)
        layers.append(band.encode(x, alt.Y("min:Q", title=""), alt.Y2("max:Q"), colour, *several))
    line = base.mark_line(clip=True, strokeWidth=1.6)
    layers.append(line.encode(x, y, colour, *dashes))
    if size.hover:
        few = base.transform_filter(f"datum.epoch % {-(-epochs // MOST_HOVERED)} == 0 || datum.epoch == {epochs}")
        layers.append(few.mark_point(opacity=0, size=60, clip=True).encode(x, y, tooltip=tooltip))
    is_end = (frame["epoch"] == 1) | (frame["epoch"] == frame.groupby("row")["epoch"].transform("max"))
    frame = frame[(frame["epoch"] % -(-epochs // MOST_EPOCHS) == 0) | is_end]
    column, order = panel
    lines = {title: wrapped(title, size.panel) for title in order}
    frame = frame.assign(panel=frame[column].map(lambda title: "\n".join(lines[title])))
    header = alt.Header(labelExpr="split(datum.label, '\\n')", labelAnchor="start", labelPadding=4)
    present = [each for each in ("\n".join(lines[title]) for title in order) if each in set(frame["panel"])]
    facet = alt.Facet("panel:N", title=None, sort=present, header=header)
    height = round(size.panel * 0.9) if size.columns > 1 else size.panel // 2
    chart = alt.layer(*layers, data=data(frame)).properties(width=size.panel, height=height)
    # the choice is made before the panels, so that what is not ticked leaves no empty ones
    panels = chart.facet(facet=facet, columns=size.columns, spacing={"row": 14, "column": 14})
    return panels.transform_filter(ticked()).resolve_axis(x="independent")


def _fitted(frame: pd.DataFrame) -> Scale:
    """A logarithmic axis for the means over seeds and the bands around them; zeros are below every such axis."""
    values = pd.concat([frame["min"], frame["mean"], frame["max"]])
    positive = values[values > 0]
    ends = [float(positive.min()), float(positive.max())] if len(positive) else [0.01]
    return Scale.fitted(ends, 1, (0.05, 0.05), logarithmic=True)


def _drawn(base: Any, scale: Scale, **shown: str) -> Any:
    """The chart with tooltips' values by other names, and what cannot be drawn on a logarithmic axis far below it."""
    floor = {key: f"max(datum.{key}, {scale.low / 1000})" for key in ("mean", "min", "max")}
    return base.transform_calculate(**{name: f"datum.{key}" for name, key in shown.items()}).transform_calculate(
        **floor
    )


def _logarithmic(field: str, title: str, scale: Scale) -> alt.Y:
    axis = alt.Axis(values=scale.ticks(), format="~g")
    return alt.Y(f"{field}:Q", title=title, axis=axis, scale=alt.Scale(type="log", domain=scale.domain, nice=False))
