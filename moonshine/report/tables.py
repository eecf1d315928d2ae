"""The tables of the results page."""

import pandas as pd

from moonshine.params.schema import Table
from moonshine.report.rows import Row

HEADINGS = {
    "top1": "Top-1 error, %",
    "top5": "Top-5 error, %",
    "parameters": "No. Params",
    "learnable": "Learnable",
    "macs": "MACs",
}


def table_frame(table: Table, rows: dict[str, Row]) -> pd.DataFrame:
    """One table as text cells: a line for each of its rows, published columns beside the measured ones."""
    lines = []
    for name in table.rows:
        line = {"Model": rows[name].title}
        for column in table.columns:
            line[HEADINGS[column]] = cell(rows[name], column)
            for published in table.published:
                if column in ("top1", "top5"):
                    value = published.values.get(name, {}).get(column)
                    line[f"{HEADINGS[column]}, {published.name}"] = "" if value is None else f"{value:.2f}"
        lines.append(line)
    return pd.DataFrame(lines)


def cell(row: Row, column: str) -> str:
    if row.metrics is None:
        return "not run"
    value = row.metrics[column]
    if isinstance(value, dict):
        deviation = f" ± {value['std']:.2f}" if "std" in value else ""
        return f"{value['mean']:.2f}{deviation}"
    return short_count(value)


def short_count(number: int) -> str:
    """Three significant digits with a unit, as the lab note writes them: 21.8M, 3.16M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:#.3g}".rstrip(".") + unit
    return str(number)
