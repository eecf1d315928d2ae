"""The tables of the results page, as cells that the pages and the CSV files are made from."""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from moonshine.params.schema import Published, Table
from moonshine.report.comparison import Comparison, compare
from moonshine.report.image_by_image import ERRORS, Error, Fidelity
from moonshine.report.latency import Latency
from moonshine.report.rows import (
    COUNTS,
    INT8_ERRORS,
    Count,
    Int8Error,
    ResultRow,
    rank,
    scratch_partner,
    untaught,
)

Spread = Literal[Error, Fidelity, Int8Error, "balanced_error"]

NOT_RUN, NOT_MEASURED = "not run", "not measured"
HEADINGS = {
    "top1": "Top-1 error, %",
    "top5": "Top-5 error, %",
    "balanced_error": "Balanced error, %",
    "parameters": "No. Params",
    "learnable": "Trainable",
    "macs": "MACs",
    "activations": "Activations",
    "size": "File",
    "agreement": "Agreement, %",
    "kl": "KL",
    "ece": "ECE, %",
    "int8_top1": "Top-1 error in int8, %",
    "int8_top5": "Top-5 error in int8, %",
    "int8_size": "File in int8",
    "latency": "Latency, ms",
    "speedup": "Speed-up",
    "int8_latency": "Latency in int8, ms",
}
SPREAD: tuple[Spread, ...] = (*ERRORS, "balanced_error", "agreement", "kl", "ece", *INT8_ERRORS)
"""Columns with a mean and a standard deviation over seeds."""
NOT_RANKED = ("agreement", "kl")
"""Columns in which the teacher is the best by definition."""
OF_MACHINES: dict[str, Callable[[Latency], float | None]] = {
    "latency": lambda latency: latency.float32,
    "speedup": lambda latency: latency.speedup,
    "int8_latency": lambda latency: latency.int8,
}
"""Columns that there are one of for each machine."""
LARGEST_FALL = 1.0
"""Points by which an error may rise in int8 before the row is marked."""
FALLEN = "†"
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
    """Whether the smallest value is the best in the table, or the greatest one."""
    greatest: bool = False


def table_columns(table: Table, rows: dict[str, ResultRow]) -> list[Column]:
    """One table: the models, then each of its columns with what was measured and what it is compared with."""
    chosen = [rows[name] for name in table.rows]
    columns = [Column("Model", "title", [Cell(row.title) for row in chosen], ranked=False)]
    for key in table.columns:
        if key == "latency" or key == "speedup" or key == "int8_latency":
            columns += _of_machines(key, chosen)
            continue
        cells = [_measured(row, key) for row in chosen]
        columns.append(Column(HEADINGS[key], key, cells, ranked=key not in NOT_RANKED))
        if key == "top1" or key == "top5":
            columns += _beside(table, key, chosen, rows)
    return [_mark_best(column) if column.ranked else column for column in columns]


def _of_machines(key: str, chosen: list[ResultRow]) -> Iterator[Column]:
    """One column for each machine that a row of the table was measured on; one that says so if there is none."""
    names = machines(chosen)
    for name in names or [""]:
        cells = [_on_machine(row.latencies.get(name), key) for row in chosen]
        several = len(names) > 1
        heading = f"{HEADINGS[key]} ({name})" if several else HEADINGS[key]
        yield Column(heading, f"{key}_{name}" if several else key, cells, greatest=key == "speedup")


def _on_machine(latency: Latency | None, key: str) -> Cell:
    value = OF_MACHINES[key](latency) if latency else None
    if value is None:
        return Cell(NOT_MEASURED)
    return Cell(f"{value:.2f}x" if key == "speedup" else short_milliseconds(value), value)


def machines(rows: Iterable[ResultRow]) -> list[str]:
    """The machines that at least one of these rows was measured on, sorted."""
    return sorted({name for row in rows for name in row.latencies})


def measured_notes(table: Table, rows: dict[str, ResultRow]) -> list[str]:
    """Sentences on what the table's columns of activations and latencies are; none for a table without any."""
    notes = []
    if "activations" in table.columns:
        notes.append("Activations are the elements of the outputs of convolutions and matrix products for one image.")
    if OF_MACHINES.keys() & {*table.columns}:
        chosen = [rows[name] for name in table.rows]
        files = {name: row.latencies[name].file for row in chosen for name in row.latencies}
        notes += [f"Latency on {files[name].description}." for name in sorted(files)]
    return notes


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


def _measured(row: ResultRow, key: Spread | Count | Literal["size", "int8_size"]) -> Cell:
    if key == "parameters" or key == "learnable" or key == "macs" or key == "activations":
        count = row.costs.get(key)
        return Cell("") if count is None else Cell(short_count(count), count)
    if key == "int8_top1" or key == "int8_top5" or key == "int8_size":
        return _in_int8(row, key)
    if row.metrics is None:
        return Cell(NOT_RUN)
    if key == "size":
        size = row.bytes_on_disk
        return Cell("") if size is None else Cell(f"{short_count(size)}B", size)
    values = _values(row, key)
    if not values:
        return Cell("")
    return _with_spread(values, digits=3 if key == "kl" else 2)


def _values(row: ResultRow, key: Spread) -> list[float]:
    """Of each seed; nothing for what the row's version did not measure."""
    if key == "agreement" or key == "kl" or key == "ece":
        return row.fidelity(key)
    if key == "int8_top1" or key == "int8_top5":
        return [*row.int8_by_seed(INT8_ERRORS[key]).values()] if row.int8 else []
    if row.metrics is None or (key == "balanced_error" and not row.has_balanced_error):
        return []
    return [*row.by_seed(key).values()]


def _with_spread(values: Sequence[float], digits: int = 2) -> Cell:
    """The mean, with the sample standard deviation of several values."""
    spread = "" if len(values) == 1 else f" ± {statistics.stdev(values):.{digits}f}"
    mean = statistics.mean(values)
    return Cell(f"{mean:.{digits}f}{spread}", mean)


def _in_int8(row: ResultRow, key: Int8Error | Literal["int8_size"]) -> Cell:
    """Empty for a row that is not quantised."""
    if row.int8 is None:
        return Cell(NOT_RUN if row.is_quantised else "")
    if key == "int8_size":
        return Cell(f"{short_count(row.int8_bytes)}B", row.int8_bytes)
    cell = _with_spread(_values(row, key))
    return dataclasses.replace(cell, text=f"{cell.text} {FALLEN}") if _has_fallen(row, key) else cell


def _has_fallen(row: ResultRow, key: Int8Error) -> bool:
    if not row.metrics or not row.int8:
        return False
    return rank(statistics.mean(_values(row, key)) - row.mean(INT8_ERRORS[key])) > LARGEST_FALL


def int8_notes(table: Table, rows: dict[str, ResultRow]) -> list[str]:
    """What a table's marks mean, and what int8 costs its rows with one scale per tensor if that was measured."""
    shown = [key for key in INT8_ERRORS if key in table.columns]
    quantised = [row for name in table.rows if (row := rows[name]).int8]
    if not shown or not quantised:
        return []
    notes = ["Errors in int8 are those of onnxruntime, with one scale per output channel of the weights."]
    if any(_has_fallen(row, key) for row in quantised for key in shown):
        notes.append(f"{FALLEN} In int8, the error is more than {LARGEST_FALL:g} point above that in float32.")
    for row in quantised:
        if row.int8 and (per_tensor := row.int8.get("per_tensor")):
            means = [f"{SHORT[INT8_ERRORS[key]]} {per_tensor[INT8_ERRORS[key]]['mean']:.2f} %" for key in shown]
            notes.append(f"{row.title} in int8 with one scale per weight tensor: {', '.join(means)}.")
    return notes


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
    best = max(known) if column.greatest else min(known)
    cells = [dataclasses.replace(cell, best=value == best) for cell, value in zip(column.cells, ranks)]
    return dataclasses.replace(column, cells=cells)


def table_csv(table: Table, rows: dict[str, ResultRow]) -> str:
    """The table as CSV with full numbers: means, deviations, differences and their p-values."""
    chosen = [rows[name] for name in table.rows]
    frame = pd.DataFrame(
        {"row": table.rows, "seeds": [len(row.by_seed("top1")) if row.metrics else 0 for row in chosen]}
    )
    for column in table_columns(table, rows):
        values = [cell.text if column.key == "title" else cell.value for cell in column.cells]
        frame[column.key] = _whole(values) if column.key in (*COUNTS, "size", "int8_size") else values
        if column.key in SPREAD:
            of_rows = [_values(row, column.key) for row in chosen]
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


def short_milliseconds(value: float) -> str:
    """Three significant digits, and all digits before the point: 136, 12.3, 0.184."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"
