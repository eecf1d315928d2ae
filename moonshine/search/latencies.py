"""results/<experiment>/block-latency/<machine>.json: what a convolution in a block takes on a machine.

People measure it with `moonshine measure --blocks` and commit it. A search takes it as one more cost of each block, as
FBNet (Wu et al., CVPR 2019, arXiv 1812.03443) and ProxylessNAS (Cai et al., ICLR 2019, arXiv 1812.00332) do: what a
network takes is the sum over its blocks, and a rest.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.search.sampling import LATENCY, NANOSECONDS, CostTable

Milliseconds = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Check(_Part):
    """How the latencies of random networks, whole, differ from what the table says."""

    networks: int
    median_error: Positive
    """Of the relative errors' absolute values; 0.1 is 10 %."""
    worst_error: Positive


class MeasuredBlocks(_Part):
    """What networks of one architecture take for one batch, if their blocks have any of these convolutions."""

    architecture: dict[str, Any]
    input: list[int]
    """Channels, height and width of the images."""
    pool: list[str]
    blocks_ms: list[list[Positive]]
    """Of each block, with each convolution of the pool."""
    rest_ms: Milliseconds
    """What whole networks take beyond the sum of their blocks; negative if they take less than that sum."""
    check: Check


class BlockLatencyFile(_Part):
    """Hardware, versions and protocol are those of `report.latency.LatencyFile`."""

    format: Literal[1] = 1
    machine: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    protocol: dict[str, Any]
    networks: list[MeasuredBlocks]
    """One for each architecture."""


def with_latencies(table: CostTable, params: Params, name: str) -> CostTable:
    """The table of the search `name` with the latencies that its machine's file has, as one more cost.

    Raises DataError (exit code 3) for a file that is missing, of another format, or measured for other networks.
    """
    path, measured = _measured(params, name)
    again = _again(params, name)
    if missing := [conv for conv in table.pool if conv not in measured.pool]:
        raise DataError(f"{path}: has no latency of {', '.join(missing)} in the pool of search.{name}; {again}")
    if [len(row) for row in measured.blocks_ms] != [len(measured.pool)] * table.blocks:
        raise DataError(f"{path}: has not {table.blocks} rows of {len(measured.pool)} latencies; {again}")
    columns = [measured.pool.index(conv) for conv in table.pool]
    rows = [[round(row[column] * NANOSECONDS) for column in columns] for row in measured.blocks_ms]
    return replace(
        table,
        fixed={**table.fixed, LATENCY: round(measured.rest_ms * NANOSECONDS)},
        of_blocks={**table.of_blocks, LATENCY: torch.tensor(rows)},
    )


def _measured(params: Params, name: str) -> tuple[Path, MeasuredBlocks]:
    """The machine's file, and what it has about the architecture of the search."""
    machine, architecture = params.search[name].machine, params.search_architecture(name)
    assert machine is not None
    path, again = artefacts.block_latency(params.experiment, machine), _again(params, name)
    try:
        file = BlockLatencyFile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {again}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {again}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise DataError(
            f"{path}: not a file of this version's `moonshine measure --blocks` ({what}); {again}"
        ) from None
    if file.machine != machine:
        raise DataError(f"{path}: is the file of the machine {file.machine}; rename it to {file.machine}.json")
    found = [each for each in file.networks if each.architecture == architecture]
    if not found:
        others = ", ".join(_in_words(each.architecture) for each in file.networks) or "no network"
        raise DataError(f"{path}: has {others}, but not {_in_words(architecture)} of search.{name}; {again}")
    if found[0].input != (expected := image_shape(params)):
        made = "x".join(map(str, found[0].input))
        raise DataError(
            f"{path}: measured with images of {made}, but the experiment has {'x'.join(map(str, expected))}; {again}"
        )
    return path, found[0]


def image_shape(params: Params) -> list[int]:
    """Channels, height and width."""
    return [params.dataset.channels, params.dataset.size, params.dataset.size]


def _again(params: Params, name: str) -> str:
    return f"run `moonshine measure --blocks --machine {params.search[name].machine}` on that machine"


def _in_words(architecture: Mapping[str, Any]) -> str:
    others = ", ".join(f"{key} {value}" for key, value in sorted(architecture.items()) if key != "arch")
    return f"{architecture.get('arch')} ({others})"
