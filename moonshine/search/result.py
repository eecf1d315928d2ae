"""results/<experiment>/search/<name>.json: what a search found, and every candidate."""

import json
from collections.abc import Sequence
from typing import Any

import torch

from moonshine.search.sampling import LATENCY, NANOSECONDS, CostTable

BEST = 10
"""Candidates that are listed once more, the best first."""


def found(
    criterion: str, table: CostTable, choices: torch.Tensor, draws: int, potentials: Sequence[float] | None
) -> dict[str, Any]:
    """The best candidate, the best few, and the number, potential, costs and convolutions of each, as plain values.

    `choices` is the sample, int64 (candidates, blocks); latencies are given in milliseconds. The criterion `fisher`
    takes the candidate with the largest potential, `parameters` that with the most parameters, and `random` the first,
    which is a random one. Of equals, the one drawn first is better.
    """
    costs = {cost: table.totals(cost, choices).tolist() for cost in table.costs}
    if LATENCY in costs:
        costs[LATENCY] = [amount / NANOSECONDS for amount in costs[LATENCY]]
    scores = {"fisher": potentials, "parameters": costs["parameters"], "random": [0] * len(choices)}[criterion]
    assert scores is not None
    order = sorted(range(len(choices)), key=lambda candidate: (-scores[candidate], candidate))

    def about(candidate: int) -> dict[str, Any]:
        described = {"candidate": candidate, "convs": table.convs(choices[candidate].tolist())}
        if potentials is not None:
            described["potential"] = potentials[candidate]
        return {**described, **{cost: costs[cost][candidate] for cost in costs}}

    columns: dict[str, Sequence[Any]] = {"potential": potentials, **costs} if potentials is not None else {**costs}
    columns["convs"] = [" ".join(table.convs(each)) for each in choices.tolist()]
    return {
        **about(order[0]),
        "draws": draws,
        "best": [about(candidate) for candidate in order[:BEST]],
        "columns": ["candidate", *columns],
        "candidates": [list(row) for row in zip(range(len(choices)), *columns.values())],
    }


def as_text(content: dict[str, Any]) -> str:
    """JSON with sorted keys, so that equal content gives equal bytes, and one line per list of plain values."""
    return _lines(content, "") + "\n"


def _lines(value: Any, indent: str) -> str:
    nested = isinstance(value, dict | list) and any(isinstance(each, dict | list) for each in _values(value))
    if not nested:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    further = indent + "  "
    if isinstance(value, dict):
        inside = [f"{json.dumps(key)}: {_lines(value[key], further)}" for key in sorted(value)]
        brackets = "{}"
    else:
        inside, brackets = [_lines(each, further) for each in value], "[]"
    return f"{brackets[0]}\n{further}" + f",\n{further}".join(inside) + f"\n{indent}{brackets[1]}"


def _values(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value
