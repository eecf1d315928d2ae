"""Where every artefact lies, relative to the project's root, and how rows are named.

A row is one line of a results table: `fetch/<network>`, `train/<network>` or `distil/<method>/<network>`.
"""

from pathlib import Path

PARAMS = Path("params.yaml")
PARAMS_CHECKED = Path("data", "params-checked.txt")
"""What the stage `check` writes, always the same; every other stage of dvc.yaml depends on it."""
RUNTIME_LOCK = Path("requirements", "runtime.lock")
"""The packages that stages import, part of the identity of each."""
RUNS = Path("runs")
MANIFEST = "manifest.json"
SNAKEMAKE_TIMESTAMP = ".snakemake_timestamp"
"""In a folder that Snakemake declares, a file whose modification time it takes for the folder's."""

GPU_CLAIMS = Path("/tmp/moonshine-gpus")  # noqa: S108 (of the whole machine: all its users and containers share it)


def data_folder(dataset: str) -> Path:
    return Path("data", dataset)


def manifest(dataset: str) -> Path:
    return data_folder(dataset) / MANIFEST


def model(experiment: str, row: str, seed: int | None = None) -> Path:
    """The published weights of one network; a fetched one has no seed."""
    return Path("models", experiment, model_name(row, seed) + ".safetensors")


def model_name(row: str, seed: int | None = None) -> str:
    """What a model is called within its experiment, as params name the teacher: `train/resnet34/seed0`."""
    return row if seed is None else f"{row}/seed{seed}"


def row_of(model: str) -> str:
    """The row of a model's name; names of networks may begin with `seed`, too."""
    return model if model.startswith("fetch/") else model.rpartition("/seed")[0]


def row_and_seed(model: str) -> tuple[str, int | None]:
    """The row and the seed of a model's name."""
    row = row_of(model)
    return row, None if row == model else int(model.removeprefix(f"{row}/seed"))


def record(experiment: str, row: str, seed: int | None = None) -> Path:
    """How the model was made. In a tree of its own, for its wall times must not make an evaluation stale."""
    base = Path("models", experiment, "records", row)
    return base.with_name(base.name + ".json") if seed is None else base / f"seed{seed}.json"


def curve(experiment: str, row: str, seed: int) -> Path:
    """Errors and losses per epoch."""
    return all_curves(experiment) / row / f"seed{seed}.csv"


def all_curves(experiment: str) -> Path:
    return Path("results", experiment, "curves")


def metrics(experiment: str, row: str) -> Path:
    return all_metrics(experiment) / (row + ".json")


def all_metrics(experiment: str) -> Path:
    return Path("results", experiment, "metrics")


def scores(experiment: str, row: str) -> Path:
    """The numbers of a row alone, flat, for `dvc metrics`."""
    return all_scores(experiment) / (row + ".json")


def all_scores(experiment: str) -> Path:
    return Path("results", experiment, "scores")


def results_folder(experiment: str) -> Path:
    return Path("results", experiment)


def attention_maps(experiment: str) -> Path:
    return results_folder(experiment) / "attention-maps"


def run_folder(experiment: str, row: str, seed: int) -> Path:
    """Work in progress of one network; below it one folder for each identity."""
    return RUNS / experiment / row / f"seed{seed}"


def teacher_model(experiment: str, teacher: str) -> Path:
    """`teacher` as in params: `fetch/<network>` or `train/<network>/seed<k>`."""
    return model(experiment, teacher)
