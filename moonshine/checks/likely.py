"""Settings that params.yaml allows but that were probably not intended."""

from collections.abc import Iterator
from pathlib import Path

from moonshine.params import Params


def likely_mistakes(params: Params) -> Iterator[str]:
    """One line per likely mistake, as `key: what`."""
    used = {row.network for row in params.rows}
    for name in params.networks:
        if name not in used:
            yield f"networks.{name}: in none of fetch, train, distil and distil_more, so it is never trained"
    in_tables = {row for table in params.tables for row in table.rows}
    for row in dict.fromkeys(row.name for row in params.rows):
        if params.tables and row not in in_tables:
            yield f"tables: {row} is in no table"
    for name, checkpoint in params.fetch.items():
        if "://" not in checkpoint.url and not Path(checkpoint.url).expanduser().is_file():
            yield f"fetch.{name}.url: no file {checkpoint.url} on this machine"
    if params.machine.device == "cuda" and not _has_gpu():
        yield "machine.device: cuda, but PyTorch finds no GPU on this machine"


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
