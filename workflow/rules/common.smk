import json
import os
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path.cwd()))

from moonshine.engines.live import require_nothing_read_by_dvc
from moonshine.engines.snakemake_plan import make_mismatches_stale
from moonshine.errors import LockedError, ParamsError
from moonshine.params import read_params
from moonshine.params.schema import JPEG_SOURCES
from moonshine.project.artefacts import PARAMS as PARAMS_FILE
from moonshine.project.artefacts import (
    RUNTIME_LOCK,
    block_latency_folder,
    latency_folder,
)
from moonshine.project.graph import CODE, PLANNED, SOURCES, code_files
from moonshine.runtime import startup


def refuse(reason: object) -> NoReturn:
    """End Snakemake while it reads this file, before it plans or deletes anything; a WorkflowError would add a frame."""
    sys.exit("\n".join(f"error: {line}" for line in str(reason).splitlines()))


def in_key_order(value: Any) -> Any:
    """The same value with sorted keys, because Snakemake compares the text of a rule's params."""
    if isinstance(value, list):
        return [in_key_order(each) for each in value]
    if isinstance(value, dict):
        return {key: in_key_order(value[key]) for key in sorted(value)}
    return value


given = workflow.config_settings
if given.config or set(given.configfiles) - {PARAMS_FILE.absolute()}:
    refuse(
        "--config and --configfile: stages read params.yaml alone; edit it, or run `moonshine use EXPERIMENT`"
    )
# Snakemake reads this file again for each job that it submits to a cluster.
try:
    PARAMS = read_params(PARAMS_FILE)
except ParamsError as error:
    refuse(error)
config = in_key_order(PARAMS.model_dump(mode="json", exclude_unset=True))
planned = json.dumps(config)
if len(planned) >= 2**17:
    refuse(f"{PARAMS_FILE}: {len(planned):,} characters, more than jobs can be given")
if PLANNED not in os.environ:
    make_mismatches_stale(PARAMS)
    os.environ[PLANNED] = planned  # jobs refuse what was not planned

# for jobs, each of which would start twice without it
os.environ.setdefault(startup.VARIABLE, startup.TUNABLES)

EXPERIMENT = PARAMS.experiment
DATASET = PARAMS.dataset.name
SEEDS = PARAMS.seeds
PROCESSES = PARAMS.recipe.processes or 1
ON_GPU = ("train", "distil", "search", "evaluate", "attention_maps")
CPUS_PER_GPU = 12  # which decode JPEG images, or the GPU waits for them
LOCK = str(RUNTIME_LOCK)
DATA = [
    f"data/{DATASET}/{name}" for name in ("manifest.json", "train.arrow", "val.arrow")
]
TRAINING_DATA = [f"data/{DATASET}/{name}" for name in ("manifest.json", "train.arrow")]
VALIDATION_DATA = [f"data/{DATASET}/{name}" for name in ("manifest.json", "val.arrow")]


def one_of(names):
    """A regular expression for these names; none at all matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    experiment=re.escape(EXPERIMENT),
    dataset=one_of(PARAMS.dataset.shared),
    licensed=one_of(PARAMS.dataset.licensed),
    network="[a-z0-9_-]+",
    method="[a-z0-9_-]+",
    search=one_of(PARAMS.search),
    seed=r"\d+",
    row=one_of(PARAMS.quantise),


def code(stage):
    """The modules that a stage is made of, and the lock of the libraries below them."""
    return [f"moonshine/{module}" for module in code_files(CODE[stage])] + [
        str(RUNTIME_LOCK)
    ]


def evaluated_rows(pattern):
    return expand(pattern, experiment=EXPERIMENT, row=PARAMS.evaluated_rows)


def predictions():
    """A file of each fetched network, and a folder with a file per seed of each other row."""
    fetched_ones = [row for row in PARAMS.evaluated_rows if row.stage == "fetch"]
    others = [row for row in PARAMS.evaluated_rows if row.stage != "fetch"]
    pattern = "models/{experiment}/predictions/{row}"
    return expand(
        f"{pattern}.parquet", experiment=EXPERIMENT, row=fetched_ones
    ) + expand(pattern, experiment=EXPERIMENT, row=others)


def quantised(patterns):
    return expand(patterns, experiment=EXPERIMENT, row=PARAMS.quantise)


def measured_latencies(folder):
    """What people have measured and committed: DVC depends on the folder, of which it ignores other files."""
    return sorted(map(str, folder(EXPERIMENT).glob("*.json")))


def fetched(patterns, networks=PARAMS.fetch):
    return expand(patterns, experiment=EXPERIMENT, network=networks)


def trained(patterns, networks=PARAMS.train):
    return expand(patterns, experiment=EXPERIMENT, network=networks, seed=SEEDS)


def distilled(patterns, group=PARAMS.distil):
    return expand(
        patterns,
        experiment=EXPERIMENT,
        method=group.methods,
        network=group.networks,
        seed=SEEDS,
    )


def resources_of(stage):
    """What a cluster reserves for a job of this stage, and the GPUs that count against --resources gpu=N."""
    job = PARAMS.machine.jobs.get(stage)
    names = {
        "minutes": "runtime",
        "memory_mb": "mem_mb",
        "cpus": "cpus_per_task",
        "partition": "slurm_partition",
        "account": "slurm_account",
    }
    settings = job.model_dump(exclude_none=True) if job else {}
    reserved = {names[key]: value for key, value in settings.items()}
    if PARAMS.machine.device == "cuda" and stage in ON_GPU:
        gpus = PROCESSES if stage in ("train", "distil") else 1
        reserved["gpu"] = gpus
        if PARAMS.dataset.source in JPEG_SOURCES:
            loading = max(CPUS_PER_GPU, PARAMS.recipe.threads) * gpus
            reserved.setdefault("cpus_per_task", loading)
    return reserved


def stage_of(job):
    """What DVC calls it."""
    return "@".join([job.rule.name, "-".join(job.wildcards_dict.values())])


def require_nothing_of_dvc_in_the_way():
    """Jobs begin by deleting their outputs: not while a stage of `dvc repro` reads them."""
    dag = workflow.dag
    if not workflow.touch:
        made = [str(path) for job in dag.needrun_jobs() for path in job.output]
        read = {stage_of(job): map(str, job.input) for job in dag.jobs}
        try:
            require_nothing_read_by_dvc(made, read)
        except LockedError as error:
            refuse(error)


def record_finished_jobs():
    """Tell DVC of the jobs that ran to their end in this invocation, and of no others."""
    dag = workflow.dag
    jobs = [job for job in dag.jobs if not job.rule.norun and dag.finished(job)]
    stages = sorted(map(stage_of, jobs))
    if stages and not workflow.touch:
        shell("python -m moonshine record {stages:q}")
