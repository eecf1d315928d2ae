"""`moonshine quantise`: one row's networks in int8, and their errors over the whole validation split."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from moonshine.data.loading import Images, open_images
from moonshine.errors import CheckpointError, DataError
from moonshine.evaluation.measure import BATCH_SIZE, measure, spread
from moonshine.export.calibration import calibration_batches
from moonshine.export.description import explanation, metadata_of
from moonshine.export.onnx_file import check_onnx, to_onnx
from moonshine.export.quantisation import quantise
from moonshine.export.session import OnnxNetwork
from moonshine.models.arithmetic import make_deterministic
from moonshine.models.model_file import load_model
from moonshine.params import Params
from moonshine.params.schema import Quantise
from moonshine.project import artefacts
from moonshine.project.records import QuantisedNetwork
from moonshine.project.rows import Row, model_name
from moonshine.runtime import signals
from moonshine.runtime.files import keep_only, sha256, write_bytes, write_json
from moonshine.runtime.progress import say, tracked

CHECKED = 64
"""Validation images on which the float32 export is compared with PyTorch."""
MEASURED: tuple[Literal["top1", "top5", "loss"], ...] = ("top1", "top5", "loss")


def quantise_row(params: Params, row: Row) -> None:
    """Write models/<experiment>/int8/<row>, one ONNX file per seed, and results/<experiment>/metrics/int8/<row>.json.

    The errors are those of onnxruntime on the CPU. Raises CheckpointError (exit code 8) if a network cannot be exported
    or quantised, DataError (3) if a model is for other images or its loss in int8 is not finite; nothing is written
    then.
    """
    settings = params.quantised_rows[row]
    make_deterministic(params.recipe.threads)
    data = open_images(artefacts.data_folder(params.dataset.name), "val", torch.device("cpu"), params.machine.workers)
    seeds = params.seeds_of(row)
    files: dict[Path, bytes] = {}
    measured: dict[bool, list[QuantisedNetwork]] = {True: [], False: []}
    """By whether there is a scale per channel."""
    for seed in seeds:
        name, path = model_name(row, seed), artefacts.model(params.experiment, row, seed)
        for per_channel, content in _quantised(params, settings, path, name, data).items():
            what = f"{name} in int8" + ("" if per_channel else ", one scale per tensor")
            measured[per_channel].append(_measure(content, data, path, what))
            if per_channel:
                files[artefacts.int8_model(params.experiment, row, seed)] = content
    splits = data.manifest["splits"]
    images = {
        key: {"name": params.dataset.name, "split": split, "sha256": splits[split]["sha256"]}
        for key, split in (("dataset", "val"), ("calibration", "train"))
    }
    whole = {
        "row": row.name,
        **images,
        "settings": settings.model_dump(),
        "n": len(data),
        **_of_row(seeds, measured[True]),
    }
    if measured[False]:
        whole["per_tensor"] = _of_row(seeds, measured[False])
    for path, content in files.items():
        write_bytes(path, content)
    if row.stage != "fetch":
        keep_only(next(iter(files)).parent, [path.name for path in files])
    write_json(artefacts.int8_metrics(params.experiment, row), whole)


def _quantised(params: Params, settings: Quantise, path: Path, name: str, data: Images) -> dict[bool, bytes]:
    """A model in int8 with a scale per channel and, if it is asked for, with one per tensor."""
    network, description = load_model(path, name)
    if description["classes"] != data.manifest["classes"] or description["input"] != data.manifest["shape"]:
        raise DataError(f"{path}: made for other classes or images than data/{params.dataset.name}; make it again")
    data.normalise_for(description["normalisation"])
    samples, _ = next(iter(data.evaluation_batches(CHECKED)))
    samples = samples.contiguous()
    exported = to_onnx(network, samples[:2], metadata_of(description, sha256(path)), explanation(description))
    check_onnx(exported, network, samples, path)
    files = {}
    for per_channel in (True, False) if settings.per_tensor else (True,):
        signals.poll()
        calibration = calibration_batches(
            artefacts.data_folder(params.dataset.name), settings.images, description["normalisation"]
        )
        try:
            files[per_channel] = quantise(
                exported, calibration, per_channel=per_channel, reduce_range=settings.reduce_range
            )
        except (CheckpointError, DataError) as error:
            raise type(error)(f"{path}: {error}") from None
    return files


def _measure(content: bytes, data: Images, path: Path, what: str) -> QuantisedNetwork:
    batches = -(-len(data) // BATCH_SIZE)
    steps = tracked(range(batches), what, batches, "batches")

    def before_each_batch() -> None:
        signals.poll()
        next(steps, None)

    found = measure(OnnxNetwork(content), data, before_each_batch)
    next(steps, None)
    if not math.isfinite(found["loss"]):
        raise DataError(f"{path}: its loss in int8 on data/{data.manifest['name']} is not finite; train it again")
    say(f"{what}: top-1 error {found['top1']:.2f} %, top-5 error {found['top5']:.2f} %, {len(content):,} bytes")
    return {
        "top1": round(found["top1"], 6),
        "top5": round(found["top5"], 6),
        "loss": round(found["loss"], 6),
        "n": int(found["n"]),
        "model_sha256": sha256(path),
        "int8_sha256": hashlib.sha256(content).hexdigest(),
        "int8_bytes": len(content),
    }


def _of_row(seeds: Sequence[int | None], networks: Sequence[QuantisedNetwork]) -> dict[str, Any]:
    """Means and deviations of the errors, then what there is of each network."""
    errors: dict[str, Any] = {key: spread([network[key] for network in networks]) for key in MEASURED}
    if seeds == [None]:
        return {**errors, **{key: value for key, value in networks[0].items() if key not in (*MEASURED, "n")}}
    return {**errors, "seeds": dict(zip(map(str, seeds), networks))}
