"""What BlockSwap's searches have found, and how well their potentials predict errors."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.params.schema import Search
from moonshine.project import artefacts
from moonshine.project.rows import Row

TITLE = "Searches"
HEADINGS = ["Search", "Criterion", "Budget", "Candidates", "Found", "Number", "Potential", "Parameters", "MACs"]
TEXTS = 5
"""How many of these columns, the first ones, are texts."""
CRITERIA = {"fisher": "Fisher potential", "parameters": "most parameters", "random": "the first drawn"}
FEWEST = 5
"""Networks without which a rank correlation says nothing."""
NORMAL = 1.959963984540054
"""Quantile of the normal distribution for an interval of 95 %."""
_SEPARATOR = " "


@dataclass(frozen=True)
class SearchResult:
    """One search and the content of its file."""

    name: str
    settings: Search
    found: dict[str, Any]
    """Number, convolutions, costs and perhaps the potential of the candidate that it chose."""
    candidates: int
    draws: int
    potentials: dict[str, float]
    """Convolutions of each candidate -> its potential; empty for other criteria."""

    @property
    def line(self) -> list[str]:
        """Its line of the table, below HEADINGS."""
        found, settings = self.found, self.settings
        return [
            self.name,
            CRITERIA[settings.criterion],
            f"{_budget(settings)} ± {100 * settings.tolerance:g} %",
            f"{self.candidates:,} of {self.draws:,} drawn",
            _SEPARATOR.join(found["convs"]),
            f"{found['candidate']:,}",
            f"{found['potential']:.4g}" if "potential" in found else "",
            f"{found['parameters']:,}",
            f"{found['macs']:,}",
        ]


def _budget(settings: Search) -> str:
    kind, amount = settings.budget
    if kind == "latency":
        return f"{amount:g} ms on {settings.machine}"
    return f"{amount:,} {'MACs' if kind == 'macs' else kind}"


def caption(searches: Sequence[SearchResult]) -> str:
    counts = {len(search.found["convs"]) for search in searches}
    blocks = f"the {counts.pop()} residual blocks" if len(counts) == 1 else "the residual blocks"
    return (
        f"Convolutions of {blocks}, from the image to the classifier, chosen among random networks within the budget "
        "before any training."
    )


def read_searches(params: Params, partial: bool = False) -> list[SearchResult]:
    """By name; `partial` leaves out those without a file.

    Raises DataError (exit code 3) for a file that is otherwise missing, or damaged.
    """
    results = []
    for name, settings in params.search.items():
        path, again = artefacts.search(params.experiment, name), f"run `moonshine search {name}`"
        if partial and not path.exists():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = pd.DataFrame(content["candidates"], columns=content["columns"])
            # of equal candidates, which have other random weights, the one drawn first is meant
            first = rows.drop_duplicates("convs")
            potentials = dict(zip(first["convs"], first["potential"])) if "potential" in first else {}
            result = SearchResult(name, settings, content, len(rows), int(content["draws"]), potentials)
            result.line  # noqa: B018 -- that everything is there
        except FileNotFoundError:
            raise DataError(f"{path}: missing; {again}") from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: damaged ({error!r}); {again}") from None
        results.append(result)
    return results


def potentials(params: Params, searches: Sequence[SearchResult], row: Row) -> dict[str, float]:
    """Search -> the potential that the row's network had there, for searches in which it was a candidate."""
    network = params.networks[row.network]
    convs = _SEPARATOR.join(network.convs or ())
    return {
        search.name: search.potentials[convs]
        for search in searches
        if convs in search.potentials
        and all(getattr(search.settings, part) == getattr(network, part) for part in ("arch", "channels", "stem"))
    }


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's coefficient, of ranks with ties averaged, and an interval that covers it in 95 % of samples.

    The interval is by Fisher's z with the variance of Bonett and Wright, "Sample size requirements for estimating
    Pearson, Kendall and Spearman correlations", Psychometrika 65, 2000: (1 + r^2 / 2) / (n - 3).
    """

    networks: int
    coefficient: float
    low: float
    high: float

    @classmethod
    def of(cls, x: Sequence[float], y: Sequence[float]) -> "RankCorrelation | None":
        """None for fewer than FEWEST values, or if all of one side are equal."""
        if len(x) < FEWEST or len({*x}) == 1 or len({*y}) == 1:
            return None
        r = float(pd.Series(x).rank().corr(pd.Series(y).rank()))
        if abs(r) >= 1 - 1e-12:
            return cls(len(x), r, r, r)
        half = NORMAL * math.sqrt((1 + r * r / 2) / (len(x) - 3))
        return cls(len(x), r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))

    def __str__(self) -> str:
        signed = [f"{value:.2f}".replace("-", "−") for value in (self.coefficient, self.low, self.high)]
        return f"{signed[0]} (95 % interval {signed[1]} to {signed[2]})"
