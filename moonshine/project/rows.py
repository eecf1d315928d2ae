"""The names of rows of results tables and of their models."""

from dataclasses import dataclass
from typing import Literal, cast, get_args

Stage = Literal["fetch", "train", "distil"]
"""The stages that make models."""


@dataclass(frozen=True)
class Row:
    """One row of a results table: a network, the stage that makes its models and, for distillation, the method.

    Its name is `fetch/<network>`, `train/<network>` or `distil/<method>/<network>`, in params.yaml as well as in the
    paths of artefacts.
    """

    stage: Stage
    network: str
    method: str | None = None

    @classmethod
    def parse(cls, name: str) -> "Row":
        """The row with this name; ValueError if the name is invalid."""
        stage, *rest = name.split("/")
        if stage not in get_args(Stage) or len(rest) != 1 + (stage == "distil") or not all(rest):
            raise ValueError(f"{name!r} is not the name of a row")
        *method, network = rest
        return cls(cast(Stage, stage), network, method[0] if method else None)

    @property
    def name(self) -> str:
        return "/".join(part for part in (self.stage, self.method, self.network) if part)

    def __str__(self) -> str:
        return self.name

    @property
    def argument(self) -> str:
        """The argument of its stage's command: `<network>` or `<method>/<network>`."""
        return self.name.removeprefix(f"{self.stage}/")


def model_name(row: Row, seed: int | None = None) -> str:
    """A model's name within its experiment, as params name the teacher: `train/resnet34/seed0`."""
    return row.name if seed is None else f"{row}/seed{seed}"


def parse_model(name: str) -> tuple[Row, int | None]:
    """The row and the seed in a model's name; a fetched one has no seed. Raises ValueError if the name is invalid.

    Names of networks may begin with `seed` too.
    """
    if name.startswith("fetch/"):
        return Row.parse(name), None
    row, _, seed = name.rpartition("/seed")
    if not (seed.isascii() and seed.isdecimal()):
        raise ValueError(f"{name!r} is not the name of a model")
    return Row.parse(row), int(seed)
