"""What code each stage is made of.

A stage declares the modules that can change its bytes: both engines run it again when one of them changes, and its
runs are identified by them. EXEMPT modules are imported by stages too but cannot change a byte of an artefact; each
has its reason. A test holds declared + exempt against what each stage really imports, and dvc.yaml against this.
"""

from pathlib import Path

PACKAGE = Path(__file__).parent

_MODELS = (
    "models/architecture.py",
    "models/conv_spec.py",
    "models/convolutions.py",
    "models/model_file.py",
    "models/names.py",
    "models/networks.py",
    "models/torchvision_networks.py",
    "models/wide_resnet.py",
)
_TRAINING = (
    "data/augmentation.py",
    "data/large_images.py",
    "data/loading.py",
    "data/normalisation.py",
    "data/order.py",
    "data/photographs.py",
    "data/store.py",
    "evaluation/measure.py",
    *_MODELS,
    "processes.py",
    "training/loop.py",
    "training/objective.py",
    "training/publish.py",
    "training/schedule.py",
    "training/session.py",
    "training/trainee.py",
)

CODE: dict[str, tuple[str, ...]] = {
    "prepare": (
        "data/photograph_store.py",
        "data/photographs.py",
        "data/prepare.py",
        "data/prepared.py",
        "data/store.py",
    ),
    "fetch": ("data/store.py", "fetch.py", *_MODELS),
    "train": (*_TRAINING, "training/train.py"),
    "distil": (
        "distillation/attention_transfer.py",
        "distillation/knowledge_distillation.py",
        "distillation/objective.py",
        "distillation/teacher.py",
        "models/attention_points.py",
        "models/features.py",
        *_TRAINING,
        "training/distil.py",
    ),
    "evaluate": (
        "data/augmentation.py",
        "data/large_images.py",
        "data/loading.py",
        "data/normalisation.py",
        "data/order.py",
        "data/photographs.py",
        "data/store.py",
        "evaluation/evaluate.py",
        "evaluation/measure.py",
        "models/cost.py",
        *_MODELS[1:],
        "processes.py",
    ),
    "attention_maps": (
        "data/augmentation.py",
        "data/large_images.py",
        "data/loading.py",
        "data/normalisation.py",
        "data/order.py",
        "data/photographs.py",
        "data/store.py",
        "distillation/attention_transfer.py",
        "evaluation/attention_maps.py",
        "evaluation/measure.py",
        "models/attention_points.py",
        "models/features.py",
        *_MODELS[1:],
        "report/attention_figure.py",
        "report/style.py",
    ),
    "report": (
        "report/attention.py",
        "report/charts.py",
        "report/comparison.py",
        "report/curves.py",
        "report/figures.py",
        "report/headline.py",
        "report/index.py",
        "report/page.html",
        "report/page.py",
        "report/report.py",
        "report/rows.py",
        "report/style.py",
        "report/tables.py",
        "report/web_page.py",
    ),
}

SOURCES = "data/sources/{source}.py"
"""Code that `prepare` is made of as well: the module of the data set's source, and no other."""

EXEMPT = {
    "__init__.py": "empty",
    "__main__.py": "starts the command line",
    "artefacts.py": "says where artefacts lie; the graph declares each place",
    "cli.py": "parses the command line and calls a stage",
    "cpus.py": "counts CPUs",
    "data/archives.py": "reads members of archives whose checksums params.yaml pins",
    "data/raw.py": "finds files whose checksums params.yaml pins",
    "device.py": "picks the device, which the run's identity names",
    "download.py": "fetches files whose checksums params.yaml pins",
    "errors.py": "messages and exit codes",
    "files.py": "writes and hashes bytes that others make",
    "gpu_claims.py": "picks one of several GPUs",
    "image.py": "refuses an image of another lock",
    "locks.py": "keeps two processes from one folder",
    "models/attention_points.py": "checks params.yaml, in the stages that read no attention",
    "models/check.py": "refuses networks that cannot be built or run",
    "models/conv_spec.py": "checks params.yaml, in the stages that build no network",
    "models/features.py": "checks params.yaml, in the stages that read no attention",
    "models/names.py": "checks params.yaml, in the stages that build no network",
    "params/__init__.py": "empty",
    "params/read.py": "checks params.yaml and fills nothing in",
    "params/references.py": "checks params.yaml and fills nothing in",
    "params/schema.py": "checks params.yaml and fills nothing in that can change a result",
    "processes.py": "gives the first of several processes its voice, in the stages that run in one",
    "progress.py": "messages",
    "signals.py": "stops a run, which then goes on to the same bytes",
    "stages.py": "this list",
    "suggest.py": "messages",
    "torchrun.py": "starts as many processes as the recipe says",
    "training/checkpoints.py": "saves and restores a state; resumed runs are tested to end in the same bytes",
    "training/identity.py": "tells runs apart",
    "training/live.py": "shows how far a run is",
    "training/memory.py": "splits students into groups, whose company changes no byte",
    "training/provenance.py": "records where a run took place",
    "training/run_folder.py": "keeps runs apart",
}
