"""The measured rows of an experiment, read from their metrics files and checked."""

import json
import math
from dataclasses import dataclass
from typing import Any

from moonshine import artefacts
from moonshine.errors import DataError
from moonshine.params import Params


@dataclass(frozen=True)
class Row:
    """One row of the tables: its title, and its metrics or None where it has not run."""

    name: str
    title: str
    metrics: dict[str, Any] | None


def read_rows(params: Params) -> dict[str, Row]:
    """Every row that params name, never one that only lies about in the folder.

    Raises DataError (exit code 3) for a missing or non-finite number, missing seeds, or rows that were measured on
    different images.
    """
    rows = {name: Row(name, params.titles.get(name, name), _read(params, name)) for name in params.rows}
    protocols = {(m["dataset"]["sha256"], m["n"]) for row in rows.values() if (m := row.metrics)}
    if len(protocols) > 1:
        raise DataError(
            f"results/{params.experiment}/metrics: rows were measured on different images; evaluate them again"
        )
    return rows


def _read(params: Params, name: str) -> dict[str, Any] | None:
    path = artefacts.metrics(params.experiment, name)
    try:
        metrics: dict[str, Any] = json.loads(path.read_text())
        numbers = [metrics[key]["mean"] for key in ("top1", "top5", "loss")]
        seeds = [int(seed) for seed in metrics["seeds"]]
    except FileNotFoundError:
        raise DataError(f"{path}: missing; run `moonshine evaluate {name}`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); run `moonshine evaluate {name}`") from None
    if sorted(seeds) != sorted(params.seeds):
        raise DataError(f"{path}: has seeds {seeds}, params.yaml {params.seeds}; run `moonshine evaluate {name}`")
    if not all(math.isfinite(number) for number in numbers):
        raise DataError(f"{path}: a value is not finite; run `moonshine evaluate {name}`")
    return metrics
