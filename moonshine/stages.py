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
    "check": (
        "models/attention_points.py",
        "models/conv_spec.py",
        "models/names.py",
        "params/read.py",
        "params/references.py",
        "params/schema.py",
        "urls.py",
    ),
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
        "report/markdown.py",
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

PARAMS: dict[str, tuple[str, ...]] = {
    "prepare": ("dataset",),
    "fetch": ("fetch.{network}", "networks.{network}"),
    "train": ("recipe", "networks.{network}"),
    "distil": ("recipe", "networks.{network}", "methods.{method}"),
    "evaluate": ("seeds", "recipe.threads"),
    "attention_maps": ("teacher", "attention_maps", "titles", "recipe.threads"),
    "report": (
        "seeds",
        "fetch",
        "train",
        "distil",
        "distil_more",
        "titles",
        "tables",
        "attention_maps",
        "teacher",
        "networks",
        "methods",
        "recipe",
        "dataset",
    ),
}
"""Keys of params.yaml that each stage goes by."""

CHECK = "check"
"""DVC's first stage, which every other depends on: it refuses a wrong params.yaml before DVC deletes an output or runs
a command. Snakemake does without: it reads params.yaml by the same rules whenever it reads its Snakefile."""

PLANNED = "MOONSHINE_PLANNED_PARAMS"
"""Environment variable with the params that Snakemake planned by, as JSON."""

EXEMPT = {
    "__init__.py": "empty",
    "__main__.py": "starts the command line",
    "allocator.py": "sets up the C library's memory allocator",
    "artefacts.py": "says where artefacts lie; the graph declares each place",
    "cli.py": "parses the command line and calls a stage",
    "compiler.py": "imports torch's compiler when it is used",
    "cpus.py": "counts CPUs",
    "data/archives.py": "reads members of archives whose checksums params.yaml pins",
    "data/check.py": "refuses positions of images that do not exist",
    "data/kept.py": "keeps prepared data, and publishes them again after their checksums",
    "data/raw.py": "finds files whose checksums params.yaml pins",
    "data/store.py": "reads manifests, in the stages that read no images",
    "device.py": "picks the device, which the run's identity names",
    "differences.py": "messages",
    "download.py": "fetches files whose checksums params.yaml pins",
    "engines/__init__.py": "empty",
    "engines/live.py": "refuses to start beside another engine",
    "engines/lock_file.py": "refuses to go on beside a part of dvc.lock",
    "errors.py": "messages and exit codes",
    "files.py": "writes and hashes bytes that others make",
    "git.py": "says which commit is checked out and what git tracks",
    "gpu_claims.py": "picks one of several GPUs",
    "image.py": "refuses an image of another lock",
    "leftovers.py": "sets aside files that no stage of params.yaml makes or reads",
    "locks.py": "keeps two processes from one folder",
    "made_for.py": "refuses data, models and results that were made for something else",
    "models/architecture.py": "tells which network a model is, in the stages that describe none",
    "models/attention_points.py": "checks params.yaml, in the stages that read no attention",
    "models/check.py": "refuses networks that cannot be built or run",
    "models/conv_spec.py": "checks params.yaml, in the stages that build no network",
    "models/description.py": "refuses models whose description cannot be true",
    "models/names.py": "checks params.yaml, in the stages that build no network",
    "params/__init__.py": "empty",
    "params/checked.py": "writes the same file always",
    "params/order.py": "puts what params.yaml names into an order that does not depend on the file's",
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
    "unchanged.py": "refuses a stage whose params or code change meanwhile",
    "urls.py": "refuses URLs",
}
