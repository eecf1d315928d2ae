"""What the figures of an experiment are drawn from, and the names and marks they use."""

from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from moonshine.project.rows import Row
from moonshine.report.class_errors import ClassErrors
from moonshine.report.curves import attention_groups, logit_losses
from moonshine.report.rows import ResultRow, untaught
from moonshine.report.searches import RankCorrelation, SearchResult
from moonshine.report.sweeps import Sweep

GREY = "#7d8590"
FETCHED = "published weights"
UNTAUGHT = {"scratch": "from scratch", "labels alone": "labels alone"}
LOOKS = {FETCHED: (GREY, "diamond"), **dict.fromkeys(UNTAUGHT.values(), ("#1f83c6", "circle"))}
COLOURS = ["#d36a00", "#0a9c74", "#b55fa0", "#8a8a1f", "#d1495b", "#7b6fd0", "#4d9a2d", "#a0785a", "#2f9fb5", "#c2408c"]
SHAPES = ["triangle-up", "square", "cross", "triangle-down", "triangle-right", "triangle-left"]


@dataclass(frozen=True)
class Measured:
    """All that the figures of an experiment are drawn from."""

    rows: list[ResultRow]
    """The rows that have run."""
    curves: dict[Row, pd.DataFrame]
    teacher: ResultRow | None
    teacher_seed: str | None
    """Seed of the trained model that taught; None for published weights."""
    lr_steps: list[int]
    """Epochs after which the learning rate drops; none if rows differ in them."""
    class_errors: ClassErrors | None = None
    searches: list[SearchResult] = field(default_factory=list)
    sweep: Sweep | None = None

    @cached_property
    def epochs(self) -> int:
        """Those of the longest training; 0 without curves."""
        return max((int(curve["epoch"].max()) for curve in self.curves.values()), default=0)

    @cached_property
    def titles(self) -> dict[Row, str]:
        return {row.row: row.title for row in self.rows}

    @cached_property
    def methods(self) -> dict[str | None, str]:
        """Key of a method in params.yaml -> its name in figures, in the order of the rows."""
        keys = dict.fromkeys(row.row.method for row in self.rows if row.row.method)
        return {key: "distilled" if len(keys) == 1 else f"distilled, {key}" for key in keys}

    def method(self, row: Row) -> str:
        return {"fetch": FETCHED, "train": UNTAUGHT[untaught(self.rows)]}.get(row.stage) or self.methods[row.method]

    @cached_property
    def looks(self) -> dict[str, tuple[str, str]]:
        """Colour and shape of each method that has rows."""
        present = {self.method(row.row) for row in self.rows}
        distilled = {
            name: (COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)])
            for number, name in enumerate(self.methods.values())
        }
        return {name: look for name, look in {**LOOKS, **distilled}.items() if name in present}

    @cached_property
    def networks(self) -> dict[str, str]:
        """Network -> its name in figures: the title of its row without a teacher, or of its only row, or its key."""
        names: dict[str, str] = {}
        for network in dict.fromkeys(row.network for row in self.rows):
            own = [row for row in self.rows if row.network == network]
            untaught = [row for row in own if row.kind != "distil"] or own
            name = untaught[0].title if len(untaught) == 1 else network
            while name in names.values():  # a title may be the key of another network
                name = f"{name} ({network})"
            names[network] = name
        return names

    @cached_property
    def by_network(self) -> list[ResultRow]:
        """The rows, grouped by network."""
        return [row for network in self.networks for row in self.rows if row.network == network]

    @property
    def machines(self) -> list[str]:
        """Those that rows were measured on, sorted."""
        return sorted({name for row in self.rows for name in row.latencies})

    @cached_property
    def candidates(self) -> dict[str, list[ResultRow]]:
        """Search -> the rows of its candidates, for searches with as many as a rank correlation takes."""
        names = dict.fromkeys(name for row in self.rows for name in row.potentials)
        of_searches = {name: [row for row in self.rows if name in row.potentials] for name in names}
        return {name: rows for name, rows in of_searches.items() if self.rank_correlations(name, rows)}

    def rank_correlations(self, search: str, rows: list[ResultRow]) -> dict[str, RankCorrelation]:
        """Method -> correlation between potential and mean top-1 error over the networks that it trained."""
        found = {}
        for method in self.looks:
            own = [row for row in rows if self.method(row.row) == method]
            if of_method := RankCorrelation.of(
                [row.potentials[search] for row in own], [row.rank("top1") for row in own]
            ):
                found[method] = of_method
        return found

    @property
    def of_several_seeds(self) -> bool:
        return any(row.deviation("top1") is not None for row in self.rows)

    @property
    def teacher_error(self) -> float:
        """Top-1 error of the model that taught."""
        assert self.teacher is not None
        errors = self.teacher.by_seed("top1")
        return errors[self.teacher_seed] if self.teacher_seed else self.teacher.mean("top1")

    @property
    def attention_curves(self) -> dict[Row, pd.DataFrame]:
        return {row: curve for row, curve in self.curves.items() if attention_groups(curve)}

    @property
    def logit_curves(self) -> dict[Row, pd.DataFrame]:
        """Curves with losses that compare logits; none if all of them are knowledge distillation."""
        curves = {row: curve for row, curve in self.curves.items() if logit_losses(curve)}
        return curves if any(logit_losses(curve) != ["kd"] for curve in curves.values()) else {}
