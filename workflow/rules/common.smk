import json
import os
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path.cwd()))

from moonshine.engines.snakemake_plan import make_mismatches_stale
from moonshine.stages import CODE, PLANNED, SOURCES

# Jobs read params.yaml anew, and refuse what was not planned. On a cluster Snakemake itself reads it anew for each job.
if PLANNED not in os.environ:
    if config != yaml.load(Path("params.yaml").read_text(), Loader=yaml.CSafeLoader):
        raise WorkflowError(
            "stages go by params.yaml alone: edit it, or put an experiment in its place "
            "with `moonshine use`, instead of --config and --configfile"
        )
    make_mismatches_stale(Path("params.yaml"))
    os.environ[PLANNED] = json.dumps(config)

EXPERIMENT = config["experiment"]
DATASET = config["dataset"]["name"]
SEEDS = config["seeds"]
PROCESSES = config["recipe"].get("processes") or 1
LOCK = "requirements/runtime.lock"
DATA = [
    f"data/{DATASET}/{name}" for name in ("manifest.json", "train.arrow", "val.arrow")
]
VALIDATION_DATA = [f"data/{DATASET}/{name}" for name in ("manifest.json", "val.arrow")]


def one_of(names):
    """A regular expression for these names; none at all matches nothing."""
    return "|".join(names) or "(?!)"


wildcard_constraints:
    experiment=EXPERIMENT,
    dataset=one_of(config["dataset"]["shared"]),
    licensed=one_of(config["dataset"]["licensed"]),
    network="[a-z0-9_-]+",
    method="[a-z0-9_-]+",
    seed=r"\d+",


def code(stage):
    """The modules that a stage is made of, and the lock of the libraries below them."""
    return [f"moonshine/{module}" for module in CODE[stage]] + [LOCK]


def fetched_rows():
    return [f"fetch/{network}" for network in config["fetch"]]


def trained_rows():
    return [f"train/{network}" for network in config["train"]]


def distilled_rows():
    return [
        f"distil/{method}/{network}"
        for group in ("distil", "distil_more")
        for method in config[group]["methods"]
        for network in config[group]["networks"]
    ]


def all_rows(pattern):
    return expand(
        pattern,
        experiment=EXPERIMENT,
        row=fetched_rows() + trained_rows() + distilled_rows(),
    )


def fetched(patterns):
    return expand(patterns, experiment=EXPERIMENT, network=config["fetch"])


def trained(patterns):
    return expand(patterns, experiment=EXPERIMENT, network=config["train"], seed=SEEDS)


def distilled(patterns, group="distil"):
    return expand(
        patterns,
        experiment=EXPERIMENT,
        method=config[group]["methods"],
        network=config[group]["networks"],
        seed=SEEDS,
    )


def resources_of(stage):
    """What a cluster reserves for a job of this stage, and the GPUs that count against --resources gpu=N."""
    machine = config.get("machine") or {}
    job = (machine.get("jobs") or {}).get(stage) or {}
    names = {
        "minutes": "runtime",
        "memory_mb": "mem_mb",
        "partition": "slurm_partition",
        "account": "slurm_account",
    }
    reserved = {names[key]: value for key, value in job.items()}
    if machine.get("device") == "cuda" and stage not in ("prepare", "report"):
        training = stage in ("train", "distil")
        reserved["gpu"] = PROCESSES if training else 1
    return reserved


def record_finished_jobs():
    """Tell DVC of the jobs that ran to their end in this invocation, and of no others."""
    dag = workflow.dag
    jobs = [job for job in dag.jobs if not job.rule.norun and dag.finished(job)]
    stages = sorted(
        "@".join([job.rule.name, "-".join(job.wildcards_dict.values())]) for job in jobs
    )
    if stages and not workflow.touch:
        shell("python -m moonshine record {stages}")
