"""Where every artefact is, relative to the project's root."""

from pathlib import Path

from moonshine.project.rows import Row, model_name, parse_model

PARAMS = Path("params.yaml")
RUNTIME_LOCK = Path("requirements", "runtime.lock")
"""Exact versions of the packages that stages run with, part of the identity of each run."""
PARAMS_CHECKED = Path("data", "params-checked.txt")
"""What the stage `check` writes, always the same; every other stage of dvc.yaml depends on it."""
RUNS = Path("runs")
COMPILED = Path(".compiled")
"""torch.compile's cache, here because containers and cluster nodes lose what they have in /tmp and at home."""
MANIFEST = "manifest.json"
SNAKEMAKE_TIMESTAMP = ".snakemake_timestamp"
"""A file in declared output folders, whose modification time Snakemake takes for the folder's."""

GPU_CLAIMS = Path("/tmp/moonshine-gpus")  # noqa: S108 (per machine: all its users and containers share it)


def data_folder(dataset: str) -> Path:
    return Path("data", dataset)


def manifest(dataset: str) -> Path:
    return data_folder(dataset) / MANIFEST


def model(experiment: str, row: Row, seed: int | None = None) -> Path:
    """The published weights of one network; a fetched one has no seed."""
    return Path("models", experiment, model_name(row, seed) + ".safetensors")


def record(experiment: str, row: Row, seed: int | None = None) -> Path:
    """How the model was made. Kept in a separate tree, because its wall times must not make an evaluation stale."""
    base = Path("models", experiment, "records", row.name)
    return base.with_name(base.name + ".json") if seed is None else base / f"seed{seed}.json"


def predictions(experiment: str, row: Row, seed: int | None = None) -> Path:
    """What one network predicts for each validation image; a fetched one has no seed."""
    return all_predictions(experiment) / f"{model_name(row, seed)}.parquet"


def all_predictions(experiment: str) -> Path:
    return Path("models", experiment, "predictions")


def curve(experiment: str, row: Row, seed: int) -> Path:
    """Errors and losses per epoch."""
    return all_curves(experiment) / row.name / f"seed{seed}.csv"


def all_curves(experiment: str) -> Path:
    return Path("results", experiment, "curves")


def metrics(experiment: str, row: Row) -> Path:
    return all_metrics(experiment) / f"{row}.json"


def all_metrics(experiment: str) -> Path:
    return Path("results", experiment, "metrics")


def int8_model(experiment: str, row: Row, seed: int | None = None) -> Path:
    """The network in int8, as ONNX; a fetched one has no seed."""
    return Path("models", experiment, "int8", model_name(row, seed) + ".onnx")


def int8_metrics(experiment: str, row: Row) -> Path:
    """Errors of the row's networks in int8."""
    return all_metrics(experiment) / "int8" / f"{row}.json"


def scores(experiment: str, row: Row) -> Path:
    """Only the numbers of a row, flat, for `dvc metrics`."""
    return all_scores(experiment) / f"{row}.json"


def all_scores(experiment: str) -> Path:
    return Path("results", experiment, "scores")


def confusion(experiment: str, row: Row) -> Path:
    """Which classes the networks of a row mistake for which."""
    return all_confusions(experiment) / f"{row}.csv"


def all_confusions(experiment: str) -> Path:
    return Path("results", experiment, "confusion")


def comparison(experiment: str, name: str) -> Path:
    """How the rows differ image by image ("pairs"), and how closely they follow the teacher ("fidelity")."""
    return Path("results", experiment, "comparison", f"{name}.csv")


def results_folder(experiment: str) -> Path:
    return Path("results", experiment)


def attention_maps(experiment: str) -> Path:
    return results_folder(experiment) / "attention-maps"


def latency_folder(experiment: str) -> Path:
    """What people have measured and committed: an input of the results page, which no stage writes."""
    return results_folder(experiment) / "latency"


def latency(experiment: str, machine: str) -> Path:
    return latency_folder(experiment) / f"{machine}.json"


def block_latency_folder(experiment: str) -> Path:
    """What people have measured of single blocks and committed: an input of searches, which no stage writes."""
    return results_folder(experiment) / "block-latency"


def block_latency(experiment: str, machine: str) -> Path:
    return block_latency_folder(experiment) / f"{machine}.json"


def all_searches(experiment: str) -> Path:
    return results_folder(experiment) / "search"


def search(experiment: str, name: str) -> Path:
    """What a search for convolutions has found."""
    return all_searches(experiment) / f"{name}.json"


def search_runs(experiment: str, name: str) -> Path:
    """Work in progress on a search, with one subfolder per identity."""
    return RUNS / experiment / "search" / name


def run_folder(experiment: str, row: Row, seed: int) -> Path:
    """Work in progress on one network, with one subfolder per identity."""
    return RUNS / experiment / row.name / f"seed{seed}"


def named_model(experiment: str, name: str) -> Path:
    """A model by its name in params: `fetch/<network>` or `train/<network>/seed<k>`."""
    return model(experiment, *parse_model(name))
