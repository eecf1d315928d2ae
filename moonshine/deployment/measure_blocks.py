"""`moonshine measure --blocks`: how long each convolution takes in each residual block, for searches within a latency.

Each block is measured alone, and what whole networks take beyond the sum of their blocks is measured on some random
ones. Exchanging one block at a time in a whole network, the other way to such a table, takes differences of two long
times, whose noise adds up over the blocks (docs/search.md has the errors of both).
"""

import json
import time
import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from io import BytesIO
from statistics import median

import numpy as np
import pandas as pd
import torch
from torch import nn

from moonshine import __version__
from moonshine.deployment.backends import Run, onnxruntime_run
from moonshine.deployment.measure import Settings, check_settings, hardware_of, timed, usual_name, warn
from moonshine.errors import ParamsError
from moonshine.models.residual_blocks import residual_blocks
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.records import Architecture
from moonshine.report.latency import Protocol
from moonshine.runtime import signals
from moonshine.runtime.files import write_text
from moonshine.runtime.progress import say, tracked
from moonshine.runtime.suggest import suggest
from moonshine.search.latencies import BlockLatencyFile, Check, MeasuredBlocks, image_shape
from moonshine.search.network import networks_of_pool
from moonshine.search.result import as_text
from moonshine.search.space import pool_of

FITTED = 10
"""Random networks from which the rest is known."""
CHECKED = 12
"""Other random networks, by which the table is judged."""
WRONG = 0.1
"""Median error from which on a warning says so."""


def measure_blocks(params: Params, searches: Sequence[str], settings: Settings) -> None:
    """Measure each convolution of the pools of these searches, by default of all, in each block.

    Writes results/<experiment>/block-latency/<machine>.json, at the end and as a whole. Searches for one architecture
    share its table, which has the convolutions of all their pools.

    Raises ParamsError (exit code 2) for an unknown search, for a convolution that cannot be built, and for settings of
    other backends than onnxruntime with one thread.
    """
    check_settings(settings)
    if settings.backend != "onnxruntime" or settings.int8 or list(settings.threads) != [1]:
        raise ParamsError("--blocks: leave out --backend, --int8 and --threads; it is onnxruntime, float32, one thread")
    if not params.search:
        raise ParamsError("search: has no entries, whose blocks --blocks could measure")
    for name in searches:
        if name not in params.search:
            raise ParamsError(f'unknown search "{name}"{suggest(name, params.search)}')
    signals.install_handlers()
    hardware = hardware_of(torch.device("cpu"))
    machine = settings.machine or usual_name(hardware, settings)
    warn(hardware, settings)
    networks = [
        _measured(params, architecture, names, settings)
        for architecture, names in _spaces(params, searches or params.search)
    ]
    protocol = Protocol(
        backend=settings.backend,
        batch=settings.batch,
        threads=[1],
        warm_up=settings.warm_up,
        rounds=settings.rounds,
        runs_per_round=settings.runs_per_round,
    )
    file = BlockLatencyFile(
        machine=machine,
        hardware=hardware.model_dump(),
        versions={"moonshine": __version__, "onnxruntime": version("onnxruntime")},
        protocol=protocol.model_dump(),
        networks=networks,
    )
    path = artefacts.block_latency(params.experiment, machine)
    write_text(path, as_text(file.model_dump()))
    for each in networks:
        error = f"{100 * each.check.median_error:.2g} % in the median, {100 * each.check.worst_error:.2g} % at most"
        say(
            f"{path}: {each.architecture['arch']}, {len(each.pool)} convolutions in {len(each.blocks_ms)} blocks; it "
            f"says of {each.check.networks} other random networks what they take, with an error of {error}"
        )
        if each.check.median_error > WRONG:
            say("warning: a budget of latency means little with such errors; measure on an idle machine")
    say(f"search with it: `latency: MILLISECONDS` and `machine: {machine}` in an entry of `search`")


def _spaces(params: Params, searches: Iterable[str]) -> list[tuple[Architecture, list[str]]]:
    """The distinct architectures, each with the names of its searches."""
    spaces: dict[str, tuple[Architecture, list[str]]] = {}
    for name in searches:
        architecture = params.search_architecture(name)
        spaces.setdefault(json.dumps(architecture, sort_keys=True), (architecture, []))[1].append(name)
    return list(spaces.values())


def _measured(
    params: Params, architecture: Architecture, searches: Sequence[str], settings: Settings
) -> MeasuredBlocks:
    by_conv = dict[str, nn.Module]()
    for name in searches:
        missing = [conv for conv in pool_of(params, name) if conv not in by_conv]
        by_conv |= networks_of_pool(architecture, missing, f"search.{name}") if missing else {}
    pool = list(by_conv)
    blocks = {conv: residual_blocks(network.eval()) for conv, network in by_conv.items()}
    network = by_conv[pool[0]]
    random = np.random.default_rng(0)
    images = random.standard_normal((settings.batch, *image_shape(params)), dtype=np.float32)
    kinds = _kinds(network, torch.from_numpy(images))
    paths = list(kinds)
    runs: dict[tuple[str, ...], Run] = {}
    of_kinds = {kind: path for path, kind in reversed(kinds.items())}
    for kind, path in tracked(of_kinds.items(), "exporting blocks", len(of_kinds), "blocks"):
        features = random.standard_normal(kind[0], dtype=np.float32)
        for conv in pool:
            signals.poll()
            runs[path, conv] = _run(blocks[conv][path], features)
    mixed = random.integers(len(pool), size=(FITTED + CHECKED, len(paths))).tolist()
    for index, choices in tracked(enumerate(mixed), "exporting networks", len(mixed), "networks"):
        signals.poll()
        for path, choice in zip(paths, choices):
            network.set_submodule(path, blocks[pool[choice]][path])
        runs[str(index),] = _run(network, images)
    # The processor's time, not the wall's: whole networks, which run for long, are interrupted by other processes more
    # often than blocks are, and would seem to take more than the sum of these.
    times = {name: median(each) for name, each in timed(runs, settings, "measuring", time.thread_time).items()}
    rows = [[_rounded(times[of_kinds[kind], conv]) for conv in pool] for kind in kinds.values()]
    sums = [sum(row[choice] for row, choice in zip(rows, choices)) for choices in mixed]
    whole = [times[str(index),] for index in range(len(mixed))]
    rest = _rounded(median(each - sum_ for each, sum_ in zip(whole[:FITTED], sums)))
    errors = [abs((sum_ + rest) / each - 1) for each, sum_ in zip(whole[FITTED:], sums[FITTED:])]
    _print({path: rows[paths.index(path)] for path in reversed(of_kinds.values())}, pool, rest)
    return MeasuredBlocks(
        architecture=dict(architecture),
        input=image_shape(params),
        pool=pool,
        blocks_ms=rows,
        rest_ms=rest,
        check=Check(networks=CHECKED, median_error=_rounded(median(errors)), worst_error=_rounded(max(errors))),
    )


Kind = tuple[tuple[int, ...], str]
"""Shape of a block's input, and its layers: blocks of one kind take equally long."""


def _kinds(network: nn.Module, images: torch.Tensor) -> dict[str, Kind]:
    """Path -> kind of each residual block."""
    kinds: dict[str, Kind] = {}

    def note(path: str, block: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        kinds[path] = tuple(inputs[0].shape), str(block)

    hooks = [
        block.register_forward_pre_hook(lambda block, inputs, path=path: note(path, block, inputs))
        for path, block in residual_blocks(network).items()
    ]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return kinds


def _run(module: nn.Module, inputs: np.ndarray) -> Run:
    """A block or a network in onnxruntime.

    Exported by PyTorch's older exporter, which takes a twentieth of the time of that of `export.onnx_file`, and from
    which onnxruntime makes the same operations. These files are never kept.
    """
    content = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.from_numpy(inputs),),
            content,  # type: ignore[arg-type]  # the older exporter takes a file
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
        )
    return onnxruntime_run(content.getvalue(), inputs, 1)


def _rounded(value: float) -> float:
    """Four digits; more are noise."""
    return float(f"{value:.4g}")


def _print(rows: dict[str, list[float]], pool: Sequence[str], rest: float) -> None:
    """A line per convolution, a column per kind of block, named by the first of it."""
    lines = [
        {"Convolution": conv, **{f"{path}, ms": f"{row[index]:.3g}" for path, row in rows.items()}}
        for index, conv in enumerate(pool)
    ]
    alignment = ["left"] + ["right"] * len(rows)
    print(pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True, colalign=alignment))
    print(f"\nwhole networks take {abs(rest):.3g} ms {'less' if rest < 0 else 'more'} than the sum of their blocks\n")
