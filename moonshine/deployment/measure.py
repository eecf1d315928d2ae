"""`moonshine measure`: how long networks take and how much memory, on this machine."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

from moonshine import __version__
from moonshine.checks.networks import check_networks
from moonshine.deployment.backends import Name, Run, interleaved, onnxruntime_run, torch_run, torch_threads
from moonshine.deployment.model import refuse_folder
from moonshine.errors import CheckpointError, MachineError, ParamsError, first_line
from moonshine.export.onnx_file import to_onnx
from moonshine.export.quantisation import quantise
from moonshine.models.model_file import load_model
from moonshine.models.networks import initialise
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.records import Architecture
from moonshine.project.rows import Row, model_name, parse_model
from moonshine.report.latency import Hardware, LatencyFile, MeasuredNetwork, Precision, Protocol, Timing
from moonshine.report.tables import short_count
from moonshine.runtime import signals
from moonshine.runtime.cpus import INT8_DOT_PRODUCTS, governor, instruction_sets, processor, usable_cpus
from moonshine.runtime.device import choose_device, why_no_gpu
from moonshine.runtime.files import write_json
from moonshine.runtime.progress import Progress, say, tracked

MACHINE = re.compile(r"[a-z0-9][a-z0-9_-]*")
CALIBRATION_BATCHES = 4
"""Of random images, with which int8 networks are calibrated: their ranges do not change how long they take."""
BUSY = 0.5
"""Running processes per CPU, from which on a warning says that others slow the measurement."""


@dataclass(frozen=True)
class Settings:
    """How to measure; `machine` names the file."""

    backend: Literal["onnxruntime", "eager", "compiled"] = "onnxruntime"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Sequence[int] = (1,)
    batch: int = 1
    rounds: int = 20
    runs_per_round: int = 5
    warm_up: int = 10
    int8: bool = False
    machine: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A network to measure, under the name that its file or params.yaml gives it."""

    name: str
    network: nn.Module
    architecture: Architecture
    input: tuple[int, int, int]
    weights: str | None


Key = tuple[str, Precision]


def measure(params: Params | None, rows: Sequence[Row], models: Sequence[Path], settings: Settings) -> None:
    """Measure the networks of these rows and the teacher's, by default of all rows, and these model files.

    Prints a table. If all networks of the experiment are measured, or `settings.machine` is given, they are written to
    results/<experiment>/latency/<machine>.json, at the end and as a whole. Networks of the same architecture are
    measured once. `params` may be None if there are only model files, of which the first is then compared with.

    Raises ParamsError (exit code 2) for settings that exclude each other, DataError (3) for a damaged model,
    MachineError (5) without the GPU that was asked for, CheckpointError (8) for a network that cannot be exported.
    """
    check_settings(settings, models)
    device = _device(settings.device)
    signals.install_handlers()
    candidates: list[Candidate] = []
    if params and (rows or not models):
        reference = parse_model(params.teacher)[0].network
        names = list(dict.fromkeys([reference, *(row.network for row in rows or params.rows)]))
        check_networks(params, names)
        candidates += [_of_experiment(params, name) for name in names]
    candidates += map(_of_file, models)
    hardware = hardware_of(device)
    machine = settings.machine or usual_name(hardware, settings)
    warn(hardware, settings)
    measured = _measured(candidates, settings, device)
    protocol = Protocol(
        backend=settings.backend,
        batch=settings.batch,
        threads=list(settings.threads),
        warm_up=settings.warm_up,
        rounds=settings.rounds,
        runs_per_round=settings.runs_per_round,
    )
    libraries = ("onnxruntime",) if settings.backend == "onnxruntime" else ("torch",)
    file = LatencyFile(
        machine=machine,
        hardware=hardware,
        versions={"moonshine": __version__, **{library: version(library) for library in libraries}},
        protocol=protocol,
        reference=candidates[0].name,
        networks=measured,
    )
    _print(file)
    if params and not models and (settings.machine or not rows):
        path = artefacts.latency(params.experiment, machine)
        write_json(path, file.model_dump())
        say(f"{path}: {len(measured)} networks; `moonshine report` shows them in columns and a figure that need them")


def check_settings(settings: Settings, models: Sequence[Path] = ()) -> None:
    """ParamsError (exit code 2) for settings that exclude each other, or that this machine cannot meet."""
    if settings.machine is not None and not MACHINE.fullmatch(settings.machine):
        raise ParamsError(f'--machine: "{settings.machine}" must be lower-case letters, digits, "-" and "_"')
    if settings.machine is not None and models:
        raise ParamsError("--machine: the file is for the experiment's networks; leave out --model, or --machine")
    if settings.backend == "onnxruntime" and settings.device == "cuda":
        raise ParamsError("--device cuda needs --backend eager or compiled; onnxruntime is measured on the CPU")
    if settings.int8 and settings.backend != "onnxruntime":
        raise ParamsError(f"--int8 needs --backend onnxruntime, not {settings.backend}")
    if settings.device == "cpu" and (most := max(settings.threads)) > usable_cpus():
        raise ParamsError(f"--threads {most}: this process may use {usable_cpus()} CPUs; name at most as many")
    for model in models:
        refuse_folder(model)


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        cause, remedy = why_no_gpu()
        raise MachineError(f"--device cuda: {cause}; {remedy}, or leave it out")
    return choose_device(wanted, 1)


def _of_experiment(params: Params, name: str) -> Candidate:
    """A trained model of this network if there is one, which may be faster: tiny weights are slow to compute with."""
    architecture, size = params.architecture(name), params.dataset.size
    for row in params.rows:
        seed = None if row.stage == "fetch" else params.seeds[0]
        path = artefacts.model(params.experiment, row, seed)
        if row.network == name and path.exists():
            network, description = load_model(path)
            if description["architecture"] == architecture and description["input"][1:] == [size, size]:
                return Candidate(name, network, architecture, _shape(description["input"]), model_name(row, seed))
    shape = (params.dataset.channels, size, size)
    return Candidate(name, initialise(architecture, 0), architecture, shape, None)


def _of_file(path: Path) -> Candidate:
    network, description = load_model(path)
    return Candidate(str(path), network, description["architecture"], _shape(description["input"]), str(path))


def _shape(values: Sequence[int]) -> tuple[int, int, int]:
    channels, height, width = values
    return channels, height, width


def hardware_of(device: torch.device) -> Hardware:
    """This machine, as files of latencies describe it."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return Hardware(
        processor=processor(),
        instruction_sets=instruction_sets(),
        cpus=usable_cpus(),
        governor=governor(),
        gpu=gpu,
    )


def usual_name(hardware: Hardware, settings: Settings) -> str:
    """The processor's model, and what is not as usual; never the host's name, because the file is published."""
    parts = [hardware.gpu or hardware.processor]
    parts += [settings.backend] if settings.backend != "onnxruntime" else []
    parts += [f"batch{settings.batch}"] if settings.batch > 1 else []
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def warn(hardware: Hardware, settings: Settings) -> None:
    """Say what makes times on this machine worth less."""
    if settings.int8 and not set(hardware.instruction_sets) & set(INT8_DOT_PRODUCTS):
        say(
            f"warning: {hardware.processor} has none of {', '.join(INT8_DOT_PRODUCTS)}: int8 may be slower than "
            "float32 here, and is faster elsewhere"
        )
    if os.getloadavg()[0] > BUSY * hardware.cpus:
        say("warning: other processes are busy here, so latencies vary and are too long; measure on an idle machine")


def _measured(candidates: Sequence[Candidate], settings: Settings, device: torch.device) -> dict[str, MeasuredNetwork]:
    """Name -> its times and memory; each distinct network is measured once."""
    distinct = {_identity(each): each for each in reversed(candidates)}
    chosen = [each for each in candidates if distinct[_identity(each)] is each]
    times, peaks = (
        _in_onnxruntime(chosen, settings) if settings.backend == "onnxruntime" else _in_torch(chosen, settings, device)
    )
    measured = {}
    for each in candidates:
        of = distinct[_identity(each)]
        timings = [
            _timing(precision, threads, found[of.name, precision])
            for threads, found in times.items()
            for precision in ("float32", "int8")
            if (of.name, precision) in found
        ]
        measured[each.name] = MeasuredNetwork(
            architecture=dict(each.architecture),
            input=list(each.input),
            weights=of.weights,
            timings=timings,
            peak_bytes={precision: peak for (name, precision), peak in peaks.items() if name == of.name},
        )
    return measured


def _identity(candidate: Candidate) -> str:
    """What latency depends on: not the weights."""
    return json.dumps([candidate.architecture, candidate.input], sort_keys=True)


def _timing(precision: Precision, threads: int, times: list[float]) -> Timing:
    """Milliseconds to four digits; more are noise."""
    low, *_, high = quantiles(times, n=10, method="inclusive")
    values = {"p10_ms": low, "median_ms": median(times), "p90_ms": high}
    rounded = {key: float(f"{value:.4g}") for key, value in values.items()}
    return Timing(precision=precision, threads=threads, **rounded)


Times = dict[int, dict[Key, list[float]]]
"""Threads -> network and precision -> milliseconds of each run."""


def _in_onnxruntime(candidates: Sequence[Candidate], settings: Settings) -> tuple[Times, dict[Key, int]]:
    images = {each.name: _random_images(each, settings.batch) for each in candidates}
    exported: dict[Key, bytes] = {}
    for each in tracked(candidates, "exporting", len(candidates), "networks"):
        signals.poll()
        exported[each.name, "float32"] = _exported(each)
        if settings.int8:
            exported[each.name, "int8"] = _quantised(each, exported[each.name, "float32"])
    times: Times = {}
    for threads in settings.threads:
        runs = {key: onnxruntime_run(file, images[key[0]], threads) for key, file in exported.items()}
        times[threads] = timed(runs, settings, f"measuring, {threads} threads" if threads > 1 else "measuring")
    peaks = {}
    for key, file in tracked(exported.items(), "peak memory", len(exported), "networks"):
        signals.poll()
        if peak := _peak_memory(file, images[key[0]], min(settings.threads)):
            peaks[key] = peak
    return times, peaks


def _in_torch(
    candidates: Sequence[Candidate], settings: Settings, device: torch.device
) -> tuple[Times, dict[Key, int]]:
    compiled, times, peaks = settings.backend == "compiled", Times(), dict[Key, int]()
    for threads in settings.threads:
        with torch_threads(threads, compiled):
            runs = {}
            for each in candidates:
                images = _random_images(each, settings.batch)
                runs[each.name, _FLOAT32] = torch_run(each.network, images, device, compiled)
            times[threads] = timed(runs, settings, f"measuring, {threads} threads" if threads > 1 else "measuring")
            if device.type == "cuda":
                for key, run in runs.items():
                    torch.cuda.reset_peak_memory_stats(device)
                    before = torch.cuda.memory_allocated(device)
                    run()
                    peaks[key] = torch.cuda.max_memory_allocated(device) - before
    return times, peaks


_FLOAT32: Precision = "float32"


def timed(
    runs: Mapping[Name, Run], settings: Settings, title: str, clock: Callable[[], float] = time.perf_counter
) -> dict[Name, list[float]]:
    """Name -> milliseconds of each timed run, by `clock`, which tells seconds; a signal ends it."""
    each = settings.warm_up + settings.rounds * (1 + settings.runs_per_round)
    with Progress(title, len(runs) * each, unit="runs") as progress:

        def after_each_turn(count: int) -> None:
            signals.poll("nothing is written, run the same command again")
            progress.update(count)

        return interleaved(runs, settings.warm_up, settings.rounds, settings.runs_per_round, after_each_turn, clock)


def _random_images(candidate: Candidate, count: int) -> np.ndarray:
    """Float32 (count, channels, height, width), normalised as real ones are: mean 0, deviation 1."""
    return np.random.default_rng(0).standard_normal((count, *candidate.input), dtype=np.float32)


def _exported(candidate: Candidate) -> bytes:
    examples = torch.from_numpy(_random_images(candidate, 2))
    try:
        return to_onnx(candidate.network.eval(), examples, {}, "")
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise CheckpointError(
            f"{candidate.name}: cannot be exported to ONNX ({first_line(error)}); measure it with --backend eager"
        ) from None


def _quantised(candidate: Candidate, exported: bytes) -> bytes:
    saturates = not set(instruction_sets()) & set(INT8_DOT_PRODUCTS)
    batches = np.split(_random_images(candidate, CALIBRATION_BATCHES), CALIBRATION_BATCHES)
    try:
        return quantise(exported, batches, reduce_range=saturates)
    except CheckpointError as error:
        raise CheckpointError(f"{candidate.name}: {error}; measure it without --int8") from None


def _peak_memory(exported: bytes, images: np.ndarray, threads: int) -> int | None:
    """Bytes, measured in a process of its own; None if the system does not tell."""
    content = BytesIO()
    np.save(content, images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        path.write_bytes(exported)
        command = [sys.executable, "-m", "moonshine.deployment.peak_memory", str(path), str(threads)]
        ended = subprocess.run(command, input=content.getvalue(), capture_output=True, check=False)
    signals.poll()  # a terminal sends the signal to the child as well
    if ended.returncode:
        last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise MachineError(f"the process that measures memory ended with {ended.returncode}: {' '.join(last)}")
    return int(ended.stdout) if ended.stdout.strip() else None


def _print(file: LatencyFile) -> None:
    lines = []
    for name, network in file.networks.items():
        for timing in network.timings:
            reference = file.median(file.reference, timing.threads) or timing.median_ms
            peak = network.peak_bytes.get(timing.precision)
            lines.append(
                {
                    "Network": name,
                    "Precision": timing.precision,
                    "Threads": str(timing.threads),
                    "Latency, ms": f"{timing.median_ms:.4g}",
                    "10 %": f"{timing.p10_ms:.4g}",
                    "90 %": f"{timing.p90_ms:.4g}",
                    "Images/s": f"{1000 * file.protocol.batch / timing.median_ms:.4g}",
                    "Speed-up": f"{reference / timing.median_ms:.2f}",
                    "Peak memory": f"{short_count(peak)}B" if peak else "",
                }
            )
    of = f"batch of {file.protocol.batch}, {file.protocol.rounds} rounds of {file.protocol.runs_per_round} runs"
    on = file.hardware.gpu or file.hardware.processor
    print(f"{on}, {file.protocol.backend}, {of}; speed-up over {file.reference}\n")
    print(pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True, colalign=["left"] * 2 + ["right"] * 7))
