"""`moonshine evaluate`: errors of one row over the whole validation split, for every seed or the published network."""

import math
from typing import Any

from moonshine.costs.counts import network_cost
from moonshine.data.loading import open_images
from moonshine.errors import DataError
from moonshine.evaluation.measure import measure, spread
from moonshine.models.arithmetic import make_deterministic
from moonshine.models.model_file import load_model
from moonshine.models.networks import place
from moonshine.params import Params
from moonshine.predictions.confusion import Confusion, balanced_error, confusion_csv, count_confusions
from moonshine.predictions.parquet_file import write_predictions
from moonshine.predictions.recorder import Recorder
from moonshine.project import artefacts
from moonshine.project.rows import Row, model_name
from moonshine.runtime import signals
from moonshine.runtime.device import choose_device
from moonshine.runtime.files import keep_only, sha256, write_json, write_text
from moonshine.runtime.progress import say

SCORES = ("top1", "top5", "loss")
MEASURED = (*SCORES, "balanced_error")


def evaluate(params: Params, row: Row) -> None:
    """Write results/<experiment>/metrics/<row>.json, and only the numbers, flat, to .../scores/<row>.json.

    What each network predicts for each image is written to models/<experiment>/predictions, and which classes the row's
    networks mistake for which to results/<experiment>/confusion/<row>.csv.
    """
    device = choose_device(params.machine.device, params.machine.trainings_per_gpu)
    make_deterministic(params.recipe.threads)
    data = open_images(artefacts.data_folder(params.dataset.name), "val", device, params.machine.workers)
    networks: list[dict[str, Any]] = []
    confusions: dict[int | None, Confusion] = {}
    published = row.stage == "fetch"
    seeds = params.seeds_of(row)
    cure = f"pin a sound checkpoint in {row.name.replace('/', '.')}" if published else "train it again"
    for seed in seeds:
        path = artefacts.model(params.experiment, row, seed)
        network, description = load_model(path, model_name(row, seed))
        if description["classes"] != data.manifest["classes"] or description["input"] != data.manifest["shape"]:
            raise DataError(f"{path}: made for other classes or images than data/{params.dataset.name}; make it again")
        data.normalise_for(description["normalisation"])
        recorder = Recorder(place(network, device))
        measured = measure(recorder, data, signals.poll)
        if not math.isfinite(measured["loss"]):
            raise DataError(f"{path}: its loss on data/{params.dataset.name} is not finite; {cure}")
        predictions = recorder.predictions(data.labels)
        write_predictions(artefacts.predictions(params.experiment, row, seed), predictions)
        confusions[seed] = count_confusions(predictions)
        measured = {**measured, "balanced_error": balanced_error(predictions)}
        measured = {key: round(value, 6) for key, value in measured.items()}
        networks.append({**measured, "model_sha256": sha256(path), "model_bytes": path.stat().st_size})
        which = row if seed is None else f"{row} seed {seed}"
        say(f"{which}: top-1 error {measured['top1']:.2f} %, top-5 error {measured['top5']:.2f} %")
    if not published:
        written = [artefacts.predictions(params.experiment, row, seed) for seed in seeds]
        keep_only(written[0].parent, [path.name for path in written])
    write_text(artefacts.confusion(params.experiment, row), confusion_csv(confusions, data.manifest["classes"]))
    cost = network_cost(description["architecture"], *description["input"][1:])
    size = cost.as_metrics()
    errors = {key: spread([measured[key] for measured in networks]) for key in MEASURED}
    split = {"name": params.dataset.name, "split": "val", "sha256": data.manifest["splits"]["val"]["sha256"]}
    file = {key: networks[0][key] for key in ("model_sha256", "model_bytes")}
    of_each = file if seeds == [None] else {"seeds": dict(zip(map(str, seeds), networks))}
    whole = {"row": row.name, "dataset": split, "n": len(data), **size, **errors, **of_each}
    write_json(artefacts.metrics(params.experiment, row), whole)
    means = {key: round(errors[key]["mean"], 4) for key in SCORES}
    write_json(artefacts.scores(params.experiment, row), {**means, **size})
