"""What the figures have in common: their sizes, how they carry data, and how they tell methods apart."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import pandas as pd

from moonshine.report.figures.labels import text_width
from moonshine.report.figures.measured import Measured
from moonshine.report.rows import ResultRow


@dataclass(frozen=True)
class Size:
    """The size of a figure, in pixels."""

    plot: int
    height: int
    panel: int
    """Width of one of several panels."""
    columns: int
    """Panels per line."""
    names: int
    """Greatest width of names on a vertical axis; longer ones are wrapped."""
    hover: bool = True
    """Whether there are invisible marks to hover over."""


WIDE = Size(plot=660, height=380, panel=142, columns=4, names=230)
"""For windows at least 800 pixels wide."""
NARROW = Size(plot=252, height=300, panel=252, columns=1, names=92)
"""For phones at least 360 pixels wide."""
FILES = replace(WIDE, hover=False)


def span(row: ResultRow) -> tuple[float, float]:
    """From one standard deviation below the mean to one above it."""
    deviation = row.deviation("top1") or 0.0
    return row.mean("top1") - deviation, row.mean("top1") + deviation


def shown(measured: Measured, row: ResultRow) -> dict[str, Any]:
    """What each mark of a row shows."""
    low, high = span(row)
    return {
        "row": row.title,
        "network": measured.networks[row.network],
        "method": measured.method(row.row),
        "error": row.mean("top1"),
        "low": low,
        "high": high,
    }


def tooltip(measured: Measured, cost: alt.Tooltip | None = None, gap: bool = False) -> list[alt.Tooltip]:
    deviations = [
        alt.Tooltip("low:Q", title="minus one deviation", format="+.2f" if gap else ".2f"),
        alt.Tooltip("high:Q", title="plus one deviation", format="+.2f" if gap else ".2f"),
    ]
    return [
        alt.Tooltip("row:N", title="model"),
        alt.Tooltip("error:Q", title="top-1 error, %", format=".2f"),
        *([alt.Tooltip("gap:Q", format="+.2f")] if gap else []),
        *(deviations if measured.of_several_seeds else []),
        *([cost] if cost else []),
    ]


def data(frame: pd.DataFrame, digits: int = 5) -> alt.InlineData:
    """The frame as CSV, a quarter of the size of a list of records."""
    return alt.InlineData(
        values=frame.to_csv(index=False, float_format=f"%.{digits}g"), format=alt.CsvDataFormat(type="csv")
    )


def ticked() -> str:
    return "indexof(networks, datum.network) >= 0 && indexof(methods, datum.method) >= 0"


def by_method(channel: Any, measured: Measured, size: Size, look: int, **legend: Any) -> Any:
    """A channel that tells methods apart, by their colours (`look` 0) or their shapes (1)."""
    names = list(measured.looks)
    scale = alt.Scale(domain=names, range=[each[look] for each in measured.looks.values()])
    return channel("method:N", scale=scale, title=None, legend=alt.Legend(columns=columns(names, size), **legend))


def columns(names: Iterable[str], size: Size) -> int:
    """How many legend entries fit side by side."""
    return max(int(size.plot / (max(text_width(name) for name in names) + 30)), 1)
