"""`moonshine evaluate`: errors of one row over the whole validation split, for every seed or the published network."""

import math
import statistics
from typing import Any

from moonshine.costs.counts import network_cost
from moonshine.data.loading import open_images
from moonshine.errors import DataError
from moonshine.evaluation.measure import measure
from moonshine.models.arithmetic import make_deterministic
from moonshine.models.model_file import load_model
from moonshine.models.networks import place
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.rows import Row, model_name
from moonshine.runtime import signals
from moonshine.runtime.device import choose_device
from moonshine.runtime.files import sha256, write_json
from moonshine.runtime.progress import say

MEASURED = ("top1", "top5", "loss")


def evaluate(params: Params, row: Row) -> None:
    """Write results/<experiment>/metrics/<row>.json, and only the numbers, flat, to .../scores/<row>.json."""
    device = choose_device(params.machine.device, params.machine.trainings_per_gpu)
    make_deterministic(params.recipe.threads)
    data = open_images(artefacts.data_folder(params.dataset.name), "val", device, params.machine.workers)
    networks: list[dict[str, Any]] = []
    published = row.stage == "fetch"
    seeds: list[int | None] = [None] if published else [*params.seeds]
    cure = f"pin a sound checkpoint in {row.name.replace('/', '.')}" if published else "train it again"
    for seed in seeds:
        path = artefacts.model(params.experiment, row, seed)
        network, description = load_model(path, model_name(row, seed))
        if description["classes"] != data.manifest["classes"] or description["input"] != data.manifest["shape"]:
            raise DataError(f"{path}: made for other classes or images than data/{params.dataset.name}; make it again")
        data.normalise_for(description["normalisation"])
        measured = {key: round(value, 6) for key, value in measure(place(network, device), data, signals.poll).items()}
        if not math.isfinite(measured["loss"]):
            raise DataError(f"{path}: its loss on data/{params.dataset.name} is not finite; {cure}")
        networks.append({**measured, "model_sha256": sha256(path), "model_bytes": path.stat().st_size})
        which = row if seed is None else f"{row} seed {seed}"
        say(f"{which}: top-1 error {measured['top1']:.2f} %, top-5 error {measured['top5']:.2f} %")
    cost = network_cost(description["architecture"], *description["input"][1:])
    size = cost.as_metrics()
    errors = {key: _spread([measured[key] for measured in networks]) for key in MEASURED}
    split = {"name": params.dataset.name, "split": "val", "sha256": data.manifest["splits"]["val"]["sha256"]}
    file = {key: networks[0][key] for key in ("model_sha256", "model_bytes")}
    of_each = file if seeds == [None] else {"seeds": dict(zip(map(str, seeds), networks))}
    whole = {"row": row.name, "dataset": split, "n": len(data), **size, **errors, **of_each}
    write_json(artefacts.metrics(params.experiment, row), whole)
    means = {key: round(errors[key]["mean"], 4) for key in MEASURED}
    write_json(artefacts.scores(params.experiment, row), {**means, **size})


def _spread(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation; the deviation of a single value is left out."""
    spread = {"mean": round(statistics.mean(values), 6)}
    return spread if len(values) == 1 else {**spread, "std": round(statistics.stdev(values), 6)}
