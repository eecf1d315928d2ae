"""`moonshine pick`: the rows of the results that a budget allows, the best first, and what each costs in accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from moonshine.errors import DataError, ParamsError
from moonshine.params import Params
from moonshine.project.rows import parse_model
from moonshine.report.rows import CostsOf, ResultRow, read_rows
from moonshine.report.tables import machines, short_count, short_milliseconds

COUNTS = {"parameters": "--max-params", "macs": "--max-macs", "activations": "--max-activations"}
"""Cost -> its option."""


@dataclass(frozen=True)
class Budget:
    """Largest allowed values; None for no limit."""

    counts: Mapping[str, float]
    """Of COUNTS."""
    latency: float | None = None
    """Milliseconds."""
    size: float | None = None
    """Bytes."""
    machine: str | None = None


def pick(params: Params, budget: Budget, costs_of: CostsOf) -> None:
    """Print the rows that have run and are within the budget, by their top-1 error, with the price of each.

    Raises ParamsError (exit code 2) if no row is, or the machine is unknown, DataError (3) if no row has run, or none
    was measured in what is limited.
    """
    rows = read_rows(params, costs_of)
    measured = [row for row in rows.values() if row.metrics]
    if not measured:
        raise DataError(f"results/{params.experiment}: no row has run; run an engine, or `moonshine evaluate ROW`")
    machine = _machine(params, list(rows.values()), budget)
    used = {row.name: _used(row, budget, machine) for row in measured}
    complete = [row for row in measured if all(value is not None for value, _ in used[row.name].values())]
    if not complete:
        lacking = {option for row in measured for option, (value, _) in used[row.name].items() if value is None}
        how = "`moonshine measure`" if lacking == {"--max-latency"} else "`moonshine evaluate` of this version"
        raise DataError(f"{', '.join(sorted(lacking))}: no row has been measured in this; use {how} first")
    share = {row.name: max((value / most for value, most in _limited(used[row.name])), default=0.0) for row in complete}
    chosen = sorted((row for row in complete if share[row.name] <= 1), key=lambda row: row.rank("top1"))
    if not chosen:
        nearest = min(complete, key=lambda row: share[row.name])
        has = ", ".join(_shown(option, value) for option, (value, _) in used[nearest.name].items())
        raise ParamsError(f"no row of {params.experiment} is within the budget; the nearest is {nearest.name}: {has}")
    teacher = rows.get(parse_model(params.teacher)[0].name)
    table = pd.DataFrame([_line(row, teacher, machine) for row in chosen])
    table = table.loc[:, (table != "").any()]  # no column of what nobody has measured
    alignment = ["left"] + ["right"] * (table.shape[1] - 1)
    print(table.to_markdown(index=False, disable_numparse=True, colalign=alignment))


def _machine(params: Params, rows: list[ResultRow], budget: Budget) -> str | None:
    """The machine whose latencies count: the only one, unless one is named; None without any."""
    known = machines(rows)
    if budget.machine is not None and budget.machine not in known:
        listed = f"those of {params.experiment} are {', '.join(known)}" if known else "none was measured yet"
        raise ParamsError(f'--machine: unknown machine "{budget.machine}"; {listed}')
    if budget.machine is None and budget.latency is not None and len(known) > 1:
        raise ParamsError(f"--max-latency: which machine? Name one with --machine: {', '.join(known)}")
    return budget.machine or (known[0] if len(known) == 1 else None)


def _used(row: ResultRow, budget: Budget, machine: str | None) -> dict[str, tuple[float | None, float]]:
    """Option -> what the row uses of what it limits, None if that is unknown, and the limit."""
    used: dict[str, tuple[float | None, float]] = {
        option: (row.costs.get(cost), budget.counts[cost]) for cost, option in COUNTS.items() if cost in budget.counts
    }
    if budget.latency is not None:
        latency = row.latencies.get(machine or "")
        used["--max-latency"] = latency.float32 if latency else None, budget.latency
    if budget.size is not None:
        used["--max-size"] = row.bytes_on_disk, budget.size
    return used


def _limited(used: dict[str, tuple[float | None, float]]) -> list[tuple[float, float]]:
    return [(value, most) for value, most in used.values() if value is not None]


def _shown(option: str, value: float | None) -> str:
    assert value is not None
    number = f"{short_milliseconds(value)} ms" if option == "--max-latency" else short_count(value)
    return f"{option.removeprefix('--max-')} {number}"


def _line(row: ResultRow, teacher: ResultRow | None, machine: str | None) -> dict[str, str]:
    """A row's error and costs, and in comparison with the teacher: points of error, and how many times less."""
    compared = teacher if teacher and teacher.metrics else None
    line = {"Row": row.name, "Top-1 error, %": f"{row.mean('top1'):.2f}"}
    line["− teacher"] = f"{row.mean('top1') - compared.mean('top1'):+.2f}" if compared else ""
    line["No. Params"] = short_count(row.costs["parameters"])
    line["Smaller"] = f"{teacher.costs['parameters'] / row.costs['parameters']:.1f}x" if teacher else ""
    line["MACs"] = short_count(row.costs["macs"])
    line["Activations"] = short_count(row.costs["activations"]) if "activations" in row.costs else ""
    line["File"] = "" if (size := row.bytes_on_disk) is None else f"{short_count(size)}B"
    if machine:
        latency = row.latencies.get(machine)
        line[f"Latency on {machine}, ms"] = short_milliseconds(latency.float32) if latency else ""
        line["Speed-up"] = f"{latency.speedup:.2f}x" if latency and latency.speedup else ""
    return line
