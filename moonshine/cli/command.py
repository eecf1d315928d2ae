"""What a command of the command line is, and the steps with which several of them begin.

Commands import what they need when they run, so that help and errors about params.yaml do not load torch.
"""

import argparse
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moonshine.errors import MachineError, ParamsError
from moonshine.project import artefacts
from moonshine.runtime import distributed, progress

if TYPE_CHECKING:
    from moonshine.params import Params
    from moonshine.project.rows import Row
    from moonshine.report.rows import Costs, CostsOf

GRAPH = Path("dvc.yaml")


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True)
class Command:
    name: str
    help: str
    """Its line in the list of commands."""
    run: Callable[[argparse.Namespace], None]
    examples: tuple[str, ...]
    add_arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments
    details: str = ""
    """What its own help adds to that line."""
    is_long: bool = False
    """Runs for long: its process is set up for speed."""
    is_distributed: bool = False
    """Several processes may run it together, started by torchrun."""
    needs_project: bool = False
    """Uses an engine or git, which also look for the project in parent folders."""


def integer(text: str) -> int:
    """An argument type."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, found {text!r}") from None


def count(text: str) -> int:
    """An argument type: an integer of at least 1."""
    if not 0 < (number := integer(text)) < 2**31:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {number}")
    return number


def amount(text: str) -> float:
    """An argument type: a positive number that may end in k, M or G, such as 3.1M or 800k."""
    units = {"k": 1e3, "M": 1e6, "G": 1e9}
    try:
        number = float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, such as 800k or 3.1M, found {text!r}")
    return number


def between(least: float, most: float, wanted: str) -> Callable[[str], float]:
    """An argument type: a number above `least` and below `most`, which `wanted` says in words."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = least
        if not least < value < most:
            raise argparse.ArgumentTypeError(f"must be {wanted}, found {text!r}")
        return value

    return number


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=integer, required=True, metavar="N", help="one of the seeds of params.yaml")


def read(options: argparse.Namespace) -> "Params":
    """The checked params file of `--params`."""
    from moonshine.params import read_params

    return read_params(options.params)


def require_params_of_engines(options: argparse.Namespace) -> None:
    """For commands that write the engines' state: engines read params.yaml and no other file."""
    if options.params.absolute() != artefacts.PARAMS.absolute():
        raise ParamsError(f"--params {options.params}: engines read {artefacts.PARAMS} only; copy it there")
    read(options)


def require_row(params: "Params", name: str, seed: int | None = None) -> "Row":
    from moonshine.runtime.suggest import suggest

    rows = {row.name: row for row in params.rows}
    if name not in rows:
        raise ParamsError(f'unknown row "{name}"{suggest(name, rows)}')
    if seed is not None and seed not in params.seeds:
        raise ParamsError(f"--seed {seed}: not among the experiment's seeds, {params.seeds}")
    return rows[name]


def require_own_folders() -> None:
    """Before work that DVC would refuse to record: to DVC, files behind a link are outside the project."""
    for folder in map(Path, ("data", "models", "results")):
        if GRAPH.is_file() and folder.is_symlink():
            raise MachineError(
                f"{folder}: a link, where DVC tracks nothing; mount the disk there, or clone the project onto it"
            )


def start(log: str) -> None:
    """For long commands: refuse what would spoil their outputs, stop on request, and keep a log."""
    from moonshine.engines.live import require_no_snakemake_beside_dvc
    from moonshine.project.container_image import require_container_image_of_this_lock
    from moonshine.project.lock_file import require_whole_record
    from moonshine.runtime import signals

    require_whole_record()
    require_no_snakemake_beside_dvc()
    require_container_image_of_this_lock()
    require_own_folders()
    if distributed.WORLD_SIZE == 1:  # several processes first connect, and then stop together
        signals.install_handlers()
    progress.keep_log(Path("logs", log + ".log"))


def costs_of(params: "Params") -> "CostsOf":
    """Costs for rows that have not run; only these need PyTorch, which takes seconds to load."""

    def of_networks(networks: list[str]) -> "dict[str, Costs]":
        from moonshine.costs.experiment import network_costs

        return {name: cost.as_metrics() for name, cost in network_costs(params, networks).items()}

    return of_networks


def check_data(params: "Params") -> None:
    from moonshine.checks.data import check_data

    check_data(params)


def check_models(params: "Params", models: "Iterable[tuple[Row, int | None]]") -> None:
    from moonshine.checks.made_for import require_models

    require_models(params, models)


def unchanged(
    options: argparse.Namespace, stage: str, inputs: Iterable[Path] = (), **names: str
) -> AbstractContextManager[None]:
    from moonshine.checks.unchanged import unchanged

    return unchanged(options.params, stage, inputs, **names)
