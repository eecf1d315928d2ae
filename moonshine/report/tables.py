"""The tables of the results page, as cells that the pages and the CSV files are made from."""

import dataclasses
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from moonshine.params.schema import Published, Table
from moonshine.report.comparison import Comparison, compare
from moonshine.report.image_by_image import Error, Fidelity
from moonshine.report.rows import COSTS, Count, ResultRow, rank, scratch_partner, untaught

Spread = Literal[Error, Fidelity, "balanced_error"]

NOT_RUN = "not run"
HEADINGS = {
    "top1": "Top-1 error, %",
    "top5": "Top-5 error, %",
    "balanced_error": "Balanced error, %",
    "parameters": "No. Params",
    "learnable": "Trainable",
    "macs": "MACs",
    "size": "File",
    "agreement": "Agreement, %",
    "kl": "KL",
    "ece": "ECE, %",
}
SPREAD: tuple[Spread, ...] = ("top1", "top5", "balanced_error", "agreement", "kl", "ece")
"""Columns with a mean and a standard deviation over seeds."""
NOT_RANKED = ("agreement", "kl")
"""Columns in which the teacher is the best by definition."""
SHORT = {"top1": "Top-1", "top5": "Top-5"}


@dataclass(frozen=True)
class Cell:
    """A cell's text, the number that it is sorted by, and whether it is the best in its column."""

    text: str
    value: float | None = None
    best: bool = False
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Column:
    heading: str
    key: str
    """Name in the CSV file."""
    cells: list[Cell]
    ranked: bool = True
    """Whether the smallest value is the best in the table."""


def table_columns(table: Table, rows: dict[str, ResultRow]) -> list[Column]:
    """One table: the models, then each of its columns with what was measured and what it is compared with."""
    chosen = [rows[name] for name in table.rows]
    columns = [Column("Model", "title", [Cell(row.title) for row in chosen], ranked=False)]
    for key in table.columns:
        cells = [_measured(row, key) for row in chosen]
        columns.append(Column(HEADINGS[key], key, cells, ranked=key not in NOT_RANKED))
        if key == "top1" or key == "top5":
            columns += _beside(table, key, chosen, rows)
    return [_mark_best(column) if column.ranked else column for column in columns]


def _beside(table: Table, key: Error, chosen: list[ResultRow], rows: dict[str, ResultRow]) -> Iterator[Column]:
    """The columns that put an error in context: against another row, and published values."""
    if table.compare:
        other = rows[table.compare]
        cells = [Cell("") if row is other else _difference(row, other, key) for row in chosen]
        yield Column(f"{SHORT[key]} − {other.title}", f"{key}_minus_compared", cells, ranked=False)
    elif any(scratch_partner(row, rows) for row in chosen):
        cells = [_difference(row, scratch_partner(row, rows), key) for row in chosen]
        yield Column(f"{SHORT[key]} − {untaught(rows.values())}", f"{key}_minus_scratch", cells, ranked=False)
    for published in table.published:
        values = [_published_value(published, row, key) for row in chosen]
        if any(value is not None for value in values):
            cells = [_published(row, key, value) for row, value in zip(chosen, values)]
            yield Column(f"{SHORT[key]}, {published.name}", f"{key}_{published.name}", cells, ranked=False)


def _published_value(published: Published, row: ResultRow, key: str) -> float | None:
    return next((value for name, value in published.values.get(row.name, {}).items() if name == key), None)


def _measured(row: ResultRow, key: Spread | Count | Literal["size"]) -> Cell:
    if key == "parameters" or key == "learnable" or key == "macs":
        return Cell(short_count(row.costs[key]), row.costs[key])
    if row.metrics is None:
        return Cell(NOT_RUN)
    if key == "size":
        size = row.bytes_on_disk
        return Cell("") if size is None else Cell(f"{short_count(size)}B", size)
    values = _values(row, key)
    if not values:
        return Cell("")
    digits = 3 if key == "kl" else 2
    spread = "" if len(values) == 1 else f" ± {statistics.stdev(values):.{digits}f}"
    mean = statistics.mean(values)
    return Cell(f"{mean:.{digits}f}{spread}", mean)


def _values(row: ResultRow, key: Spread) -> list[float]:
    """Of each seed; nothing for what the row's version did not measure."""
    if key == "agreement" or key == "kl" or key == "ece":
        return row.fidelity(key)
    if key == "balanced_error" and not row.has_balanced_error:
        return []
    return [*row.by_seed(key).values()]


def _difference(row: ResultRow, other: ResultRow | None, key: Error) -> Cell:
    """The row's error minus the other's; empty if either is not measured."""
    if not other or not row.metrics or not other.metrics:
        return Cell("")
    comparison = compare(row.by_seed(key), other.by_seed(key), row.metrics["n"], row.only_one_wrong(other, key))
    return Cell(str(comparison), comparison.difference, comparison=comparison)


def _published(row: ResultRow, key: Error, value: float | None) -> Cell:
    """The published error, and in brackets the measured one minus it."""
    if value is None:
        return Cell("")
    if row.metrics is None:
        return Cell(f"{value:.2f}", value)
    comparison = compare(row.by_seed(key), value, row.metrics["n"])
    return Cell(f"{value:.2f} ({comparison})", value, comparison=comparison)


def _mark_best(column: Column) -> Column:
    ranks = [None if cell.value is None else rank(cell.value) for cell in column.cells]
    known = [value for value in ranks if value is not None]
    if len(known) < 2 or min(known) == max(known):
        return column
    cells = [dataclasses.replace(cell, best=value == min(known)) for cell, value in zip(column.cells, ranks)]
    return dataclasses.replace(column, cells=cells)


def table_csv(table: Table, rows: dict[str, ResultRow]) -> str:
    """The table as CSV with full numbers: means, deviations, differences and their p-values."""
    chosen = [rows[name] for name in table.rows]
    frame = pd.DataFrame(
        {"row": table.rows, "seeds": [len(row.by_seed("top1")) if row.metrics else 0 for row in chosen]}
    )
    for column in table_columns(table, rows):
        values = [cell.text if column.key == "title" else cell.value for cell in column.cells]
        frame[column.key] = _whole(values) if column.key in (*COSTS, "size") else values
        if column.key in SPREAD:
            of_rows = [_values(row, column.key) if row.metrics else [] for row in chosen]
            frame[f"{column.key}_std"] = [statistics.stdev(values) if len(values) > 1 else None for values in of_rows]
        if any(cell.comparison for cell in column.cells):
            comparisons = [cell.comparison for cell in column.cells]
            if "_minus_" in column.key:
                frame[f"{column.key}_p"] = [c.p_value if c else None for c in comparisons]
            else:
                frame[f"{column.key}_difference"] = [c.difference if c else None for c in comparisons]
                frame[f"{column.key}_p"] = [c.p_value if c else None for c in comparisons]
    return frame.to_csv(index=False, float_format="%.6g")


def _whole(values: list[Any]) -> Any:
    """Counts in full; a row without one would turn them into floats, which lose digits."""
    return pd.array([None if value is None else round(value) for value in values], dtype="Int64")


def short_count(number: float) -> str:
    """Three significant digits with a unit, as the lab note writes them: 21.8M, 3.16M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if float(f"{number / size:.3g}") >= 1:
            return f"{number / size:#.3g}".rstrip(".") + unit
    return str(round(number))
