"""The measured rows of an experiment, read from their metrics files and checked."""

import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.records import Int8Metrics, Metrics
from moonshine.project.rows import Row, Stage
from moonshine.report.image_by_image import ERRORS, Error, Fidelity, ImageByImage, read_image_by_image, require_fit
from moonshine.report.latency import Latency, latencies, read_latency_files
from moonshine.report.searches import potentials, read_searches

Measure = Literal[Error, "loss", "balanced_error"]
Count = Literal["parameters", "learnable", "macs", "activations"]
MEASURED: tuple[Measure, ...] = (*ERRORS, "loss")
Int8Error = Literal["int8_top1", "int8_top5"]
INT8_ERRORS: dict[Int8Error, Error] = {"int8_top1": "top1", "int8_top5": "top5"}
"""Column -> the error that it has of the int8 networks."""
COSTS: tuple[Count, ...] = ("parameters", "learnable", "macs")
"""Counts that all metrics have."""
COUNTS: tuple[Count, ...] = (*COSTS, "activations")
Costs = dict[str, int]
CostsOf = Callable[[list[str]], dict[str, Costs]]
"""Names of networks -> the costs of each, which need no data. This folder does not import the networks."""


def rank(value: float) -> float:
    return round(value, 5)


@dataclass(frozen=True)
class ResultRow:
    """One row of the tables: its title, its metrics or None if it has not run, and what its network costs."""

    row: Row
    title: str
    metrics: Metrics | None
    costs: Costs
    is_from_scratch: bool = True
    """Whether the weights were random when training began; false for weights that params.yaml gives."""
    compared: ImageByImage = field(default_factory=ImageByImage)
    """What was counted over the predictions of all rows."""
    is_quantised: bool = False
    """Whether params.yaml says so."""
    int8: Int8Metrics | None = None
    """Metrics of the int8 networks, or None if they have not been measured."""
    latencies: dict[str, Latency] = field(default_factory=dict)
    """Machine -> what the network takes there."""
    potentials: dict[str, float] = field(default_factory=dict)
    """Search -> the potential of the untrained network, if it was a candidate there."""

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def kind(self) -> Stage:
        return self.row.stage

    @property
    def network(self) -> str:
        return self.row.network

    def by_seed(self, key: Measure) -> dict[str, float]:
        """Seed -> top1, top5, loss or balanced_error; a published network, which has no seed, is under "published"."""
        assert self.metrics is not None
        seeds = self.metrics.get("seeds", {})
        return {seed: measured[key] for seed, measured in seeds.items()} or {"published": self.metrics[key]["mean"]}

    def mean(self, key: Measure) -> float:
        return statistics.mean(self.by_seed(key).values())

    def rank(self, key: Measure) -> float:
        """The rounded mean that rows are compared by: seeds' errors have six decimals, so equal means may differ."""
        return rank(self.mean(key))

    def deviation(self, key: Measure) -> float | None:
        """Sample standard deviation over seeds, None for a single value."""
        values = self.by_seed(key).values()
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def has_balanced_error(self) -> bool:
        """Whether it has run and was evaluated by a version that measures the balanced error."""
        return self.metrics is not None and "balanced_error" in self.metrics

    def fidelity(self, key: Fidelity) -> list[float]:
        """agreement, kl or ece of each seed; nothing if it was not measured."""
        return [*self.compared.fidelity.get((self.name, key), {}).values()]

    def only_one_wrong(self, other: "ResultRow", key: Error) -> tuple[int, int] | None:
        """On how many images only this row's network is wrong, and only the other's, if there is one of each."""
        counts = self.compared.only_one_wrong.get((self.name, other.name, key), {})
        return next(iter(counts.values())) if len(counts) == 1 else None

    def int8_by_seed(self, key: Error) -> dict[str, float]:
        """Seed -> error of the int8 network, as `by_seed`."""
        assert self.int8 is not None
        seeds = self.int8.get("seeds", {})
        return {seed: measured[key] for seed, measured in seeds.items()} or {"published": self.int8[key]["mean"]}

    @property
    def int8_bytes(self) -> float:
        """Size of the int8 file, the mean over seeds."""
        assert self.int8 is not None
        sizes = [seed["int8_bytes"] for seed in self.int8.get("seeds", {}).values()]
        return statistics.mean(sizes or [self.int8["int8_bytes"]])

    @property
    def bytes_on_disk(self) -> float | None:
        """Size of the model file, the mean over seeds; None if the metrics lack it."""
        assert self.metrics is not None
        sizes = [seed["model_bytes"] for seed in self.metrics.get("seeds", {}).values() if "model_bytes" in seed]
        return statistics.mean(sizes) if sizes else self.metrics.get("model_bytes")


def read_rows(params: Params, costs_of: CostsOf | None = None) -> dict[str, ResultRow]:
    """Every evaluated row that params name, and no others that may be in the folder.

    With `costs_of`, rows and searches may be missing: rows have no metrics then, and the costs that it computes. Raises
    DataError (exit code 3) for a row or search that is otherwise missing, a missing or non-finite number, missing
    seeds, a mean that is not that of its seeds, rows that were measured on different images, or a file of latencies of
    another format.
    """
    paths = {row: artefacts.metrics(params.experiment, row) for row in params.evaluated_rows}
    absent = [row for row, path in paths.items() if costs_of and not path.exists()]
    computed = costs_of(list(dict.fromkeys(row.network for row in absent))) if costs_of and absent else {}
    compared = read_image_by_image(params)
    files, searches = read_latency_files(params), read_searches(params, partial=costs_of is not None)
    rows = {}
    for row, path in paths.items():
        metrics = None if row in absent else _checked(params, row, path, "evaluate", _contents)
        costs: Costs = {key: metrics[key] for key in COUNTS if key in metrics} if metrics else computed[row.network]
        is_quantised = row in params.quantised_rows
        int8_path = artefacts.int8_metrics(params.experiment, row)
        is_measured = is_quantised and (costs_of is None or int8_path.exists())
        int8 = _checked(params, row, int8_path, "quantise", _int8_contents) if is_measured else None
        rows[row.name] = ResultRow(
            row,
            params.title(row),
            metrics,
            costs,
            params.networks[row.network].init is None,
            compared,
            is_quantised,
            int8,
            latencies(params, files, row),
            potentials(params, searches, row),
        )
    checked: list[Metrics | Int8Metrics | None] = [file for each in rows.values() for file in (each.metrics, each.int8)]
    protocols = {(file["dataset"]["sha256"], file["n"]) for file in checked if file}
    if len(protocols) > 1:
        raise DataError(
            f"results/{params.experiment}/metrics: rows were measured on different images; evaluate them again"
        )
    measured = [row for row in rows.values() if row.metrics]
    of_errors = {(row.name, error): row.by_seed(error) for row in measured for error in ERRORS}
    for _, images in protocols:
        require_fit(params, compared, of_errors, images)
    return rows


def untaught(rows: Iterable[ResultRow]) -> str:
    """How rows without a teacher were trained, in a word or two."""
    return "scratch" if all(row.is_from_scratch for row in rows if row.kind == "train") else "labels alone"


def scratch_partner(row: ResultRow, rows: dict[str, ResultRow]) -> ResultRow | None:
    """The same network without a teacher, trained here or published; None for a row that is not distilled."""
    if row.kind != "distil":
        return None
    return rows.get(f"train/{row.network}") or rows.get(f"fetch/{row.network}")


Contents = tuple[list[float], dict[str, tuple[float, float]]]
"""The numbers of a file, which must be finite, and its means: name -> (as the file says, of the seeds)."""


def _contents(row: Row, metrics: Metrics) -> Contents:
    of_row = ResultRow(row, row.name, metrics, {})
    measured: tuple[Measure, ...] = (*MEASURED, "balanced_error") if of_row.has_balanced_error else MEASURED
    numbers: list[float] = [metrics["n"], *(metrics[key] for key in COSTS)]
    numbers += [value for key in measured for value in of_row.by_seed(key).values()]
    return numbers, {key: (metrics[key]["mean"], of_row.mean(key)) for key in measured}


def _int8_contents(row: Row, metrics: Int8Metrics) -> Contents:
    of_row = ResultRow(row, row.name, None, {}, int8=metrics)
    errors = {key: of_row.int8_by_seed(key).values() for key in ERRORS}
    numbers = [metrics["n"], of_row.int8_bytes, *(value for values in errors.values() for value in values)]
    return numbers, {key: (metrics[key]["mean"], statistics.mean(values)) for key, values in errors.items()}


def _checked(params: Params, row: Row, path: Path, stage: str, contents: Callable[[Row, Any], Contents]) -> Any:
    """The content of a metrics file that `stage` writes. Raises DataError (exit code 3) if it is missing or wrong."""
    again = f"run `moonshine {stage} {row}`"
    try:
        metrics = json.loads(path.read_text())
        seeds = [int(seed) for seed in metrics.get("seeds", {})]
        numbers, means = contents(row, metrics)
        wrong = [key for key, (stated, mean) in means.items() if not math.isclose(stated, mean, abs_tol=1e-4)]
        finite = all(math.isfinite(number) for number in numbers)
        metrics["dataset"]["sha256"]
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {again}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); {again}") from None
    if not finite:
        raise DataError(f"{path}: a value is not finite; {again}")
    if row.stage != "fetch" and sorted(seeds) != sorted(params.seeds):
        raise DataError(f"{path}: has seeds {seeds}, params.yaml {params.seeds}; {again}")
    if wrong:
        raise DataError(f"{path}: {wrong[0]} is not the mean of its seeds; {again}")
    return metrics
