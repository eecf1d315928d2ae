"""A project whose results are measured already, made by hand: what the report and its pages are tested on."""

import csv
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.separate_project import write_params
from tests.support.project import toy_params

VALIDATION = {"name": "digits", "split": "val", "sha256": "6e16" + 60 * "0"}
COSTS = {"train/teacher": 60_000, "train/student": 3_000, "distil/at/student": 3_000}
TOP1 = {
    "train/teacher": {"0": 2.0, "1": 2.2, "2": 1.9},
    "train/student": {"0": 9.0, "1": 10.0, "2": 8.0},
    "distil/at/student": {"0": 7.0, "1": 8.05, "2": 5.95},
}


def measured_params() -> dict[str, Any]:
    """Three rows and three seeds, of which the distilled one has a published value."""
    params = toy_params()
    params.update(seeds=[0, 1, 2], train=["teacher", "student"])
    params["titles"]["train/student"] = "From scratch"
    params["attention_maps"]["scratch"] = "train/student/seed0"
    published = {"name": "Paper", "source": "Somebody, 2018, table 1", "values": {"distil/at/student": {"top1": 7.5}}}
    rows = list(TOP1)
    params["tables"][0].update(rows=rows, columns=["parameters", "size", "top1", "top5"], published=[published])
    return params


def row_metrics(row: str, top1: dict[str, float], **changes: Any) -> dict[str, Any]:
    values = {"loss": 0.5, "top5": 1.0, "n": 600, "model_bytes": 4 * COSTS[row], "model_sha256": 64 * "0"}
    spread = {"mean": statistics.mean(top1.values())}
    return {
        "row": row,
        "dataset": VALIDATION,
        "n": 600,
        "parameters": COSTS[row],
        "learnable": COSTS[row] - 100,
        "macs": 10 * COSTS[row],
        "top1": spread,
        "top5": {"mean": 1.0},
        "loss": {"mean": 0.5},
        "seeds": {seed: {**values, "top1": error} for seed, error in top1.items()},
        **changes,
    }


def write_metrics(project: Path, row: str, content: Any) -> Path:
    path = project / "results" / "toy" / "metrics" / f"{row}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def write_curves(project: Path) -> None:
    """Two epochs a row and seed, as a stage publishes them."""
    for row in TOP1:
        parts = {f"attention_{group}": 0.01 / group for group in (1, 2, 3, 4)} if row.startswith("distil") else {}
        for seed in (0, 1, 2):
            path = project / "results/toy/curves" / row / f"seed{seed}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [",".join(["epoch", "lr", "train_top1", "val_top1", *parts])]
            lines += [",".join(map(str, [epoch, 0.1, 60 / epoch, 50 / epoch, *parts.values()])) for epoch in (1, 2)]
            path.write_text("\n".join(lines) + "\n")


def write_attention_maps(project: Path) -> None:
    folder = project / "results/toy/attention-maps"
    folder.mkdir(parents=True)
    models = {
        "teacher": "train/teacher/seed0",
        "scratch": "train/student/seed0",
        "distilled": "distil/at/student/seed0",
    }
    distance = {"scratch": [0.5, 0.4, 0.3, 0.2], "distilled": [0.25, 0.125, 0.06, 0.03]}
    content = {
        "n": 600,
        "images": [{}, {}],
        "distance": distance,
        "models": {k: {"model": v} for k, v in models.items()},
    }
    (folder / "distances.json").write_text(json.dumps(content))
    for name in ("maps.svg", "maps-dark.svg"):
        (folder / name).write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 1"/>')


def write_project(folder: Path) -> Path:
    """Params, metrics, curves and attention maps of three rows and three seeds."""
    write_params(folder, measured_params())
    for row, top1 in TOP1.items():
        write_metrics(folder, row, row_metrics(row, top1))
    write_curves(folder)
    write_attention_maps(folder)
    return folder


def write_confusions(project: Path, confusions: dict[str, dict[str, dict[tuple[str, str], int]]]) -> None:
    """Row -> seed -> (label, prediction) -> images, as `evaluate` writes them, and the metrics that belong to them."""
    for row, by_seed in confusions.items():
        top1 = {}
        lines = [["seed", "label", "prediction", "images"]]
        for seed, counts in by_seed.items():
            right = sum(images for (label, prediction), images in counts.items() if label == prediction)
            top1[seed] = 100 * (1 - right / sum(counts.values()))
            lines += [[seed, *pair, str(images)] for pair, images in counts.items()]
        count = sum(next(iter(by_seed.values())).values())
        write_metrics(project, row, row_metrics(row, top1, n=count))
        path = project / "results/toy/confusion" / f"{row}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
