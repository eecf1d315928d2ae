"""Settings that params.yaml allows but that were probably not intended."""

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from moonshine.models.networks import build_network
from moonshine.params import Params
from moonshine.params.schema import TEACHER, PinnedFile
from moonshine.project.rows import parse_model
from moonshine.runtime.device import missing_gpu


def likely_mistakes(params: Params) -> Iterator[str]:
    """One line per likely mistake, as `key: what`."""
    used = {row.network for row in params.rows}
    for name in params.networks:
        if name not in used:
            yield f"networks.{name}: no row is made from it, so it is never trained"
    trained = {row.network for row in params.seeded_rows}
    for name, network in params.networks.items():
        if network.recipe and name in used - trained:
            yield f"networks.{name}.recipe: has no effect, because {name} is only fetched"
    in_tables = {row for table in params.tables for row in table.rows}
    for row in dict.fromkeys(row.name for row in params.evaluated_rows):
        if params.tables and row not in in_tables:
            yield f"tables: {row} is in no table"
    trained = {row.network for row in params.seeded_rows}
    for name, network in params.networks.items():
        if network.init is not None and name in used - trained:
            yield f"networks.{name}.init: only published weights of it are used, so it begins no training"
    yield from _other_normalisation(params)
    for name in params.fetch_teacher:
        if params.teacher != f"fetch/{name}":
            yield f"fetch_teacher.{name}: is not the teacher, so no student learns from it"
    begun = {f"networks.{name}.init": network.init for name, network in params.networks.items()}
    files = {params.checkpoint_key(name): checkpoint for name, checkpoint in params.checkpoints.items()} | begun
    for key, file in files.items():
        if isinstance(file, PinnedFile) and "://" not in file.url and not Path(file.url).expanduser().is_file():
            yield f"{key}.url: no file {file.url} on this machine"
    if problem := missing_gpu(params.machine.device):
        yield problem
    if params.machine.device == "cuda":
        yield from _nondeterministic_networks(params)


def _other_normalisation(params: Params) -> Iterator[str]:
    """Students that begin with weights which expect other pixels than they will see."""
    row, _ = parse_model(params.teacher)
    if row.stage != "fetch" or not params.checkpoints[row.network].normalisation:
        return
    key = f"{params.checkpoint_key(row.network)}.normalisation"
    for name, network in params.networks.items():
        if network.init == TEACHER:
            yield (
                f"networks.{name}.init: the teacher's weights were trained with {key}, but {name} sees the data set's "
                "normalisation; if it learns worse than without init, leave init out"
            )


def _nondeterministic_networks(params: Params) -> Iterator[str]:
    """Networks whose backward pass on a GPU adds in an order that varies, by PyTorch's notes on reproducibility.

    A mean over whole maps, as most networks have it before the classifier, is no such operation.
    """
    for name in dict.fromkeys(row.network for row in params.seeded_rows):
        network = build_network(params.architecture(name))
        for layer in network.modules():
            if isinstance(layer, nn.MultiheadAttention) or (
                isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size not in (1, (1, 1))
            ):
                yield (
                    f"networks.{name}: on a GPU the gradient of its {type(layer).__name__} differs from run to run, "
                    "so a resumed training may end with other bytes"
                )
                break
