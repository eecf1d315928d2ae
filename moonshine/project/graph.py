"""The code and the params that each stage depends on.

Either all code in a folder may affect the bytes of results, or none of it. A stage declares the folders whose code can
change its outputs, and its own file: both engines rerun it when one of them changes, and they identify its runs.
Folders that no stage declares change no byte of a result, whatever imports them. A test checks the imports and dvc.yaml
against this.
"""

from collections.abc import Iterable
from pathlib import Path, PurePath

PACKAGE = Path(__file__).parent.parent

_TRAINING = ("data", "evaluation", "images", "models", "training")

CODE: dict[str, tuple[str, ...]] = {
    "check": ("models", "params"),
    "prepare": ("images", "preparation", "stages/prepare.py"),
    "fetch": ("images", "models", "stages/fetch.py"),
    "fetch_teacher": ("images", "models", "stages/fetch.py"),
    "train": (*_TRAINING, "stages/train.py"),
    "distil": (*_TRAINING, "distillation", "stages/distil.py"),
    "evaluate": ("costs", "data", "evaluation", "images", "models", "predictions", "stages/evaluate.py"),
    "quantise": ("data", "evaluation", "export", "images", "models", "stages/quantise.py"),
    "quantise_fetch": ("data", "evaluation", "export", "images", "models", "stages/quantise.py"),
    "search": ("data", "images", "models", "search", "stages/search.py"),
    "attention_maps": (
        "data",
        "distillation",
        "drawing",
        "evaluation",
        "images",
        "models",
        "stages/attention_maps.py",
    ),
    "compare": ("comparison", "predictions", "stages/compare.py"),
    "report": ("drawing", "report", "stages/report.py"),
}
"""Folders and files of the package."""

SOURCES = "sources/{source}.py"
"""Code that `prepare` depends on as well: the module of the data set's source, and no other."""


def code_files(declared: Iterable[str]) -> list[str]:
    """All code files in these folders and files, relative to the package."""
    names = set[str]()
    for name in declared:
        path = PACKAGE / name
        names |= {name} if path.suffix else {f"{name}/{file}" for file in code_in(path)}
    return sorted(names)


def code_in(folder: Path) -> list[Path]:
    """The code files in a folder, relative to it."""
    return [name for file in folder.rglob("*") if is_code(name := file.relative_to(folder)) and not file.is_dir()]


def is_code(path: PurePath) -> bool:
    """Modules and templates, not files of editors or caches; .dvcignore tells DVC, which hashes folders, the same."""
    return path.suffix in (".py", ".html") and not any(part.startswith(".") for part in path.parts)


PARAMS: dict[str, tuple[str, ...]] = {
    "prepare": ("dataset",),
    "fetch": ("fetch.{network}", "networks.{network}"),
    "fetch_teacher": ("fetch_teacher.{network}", "networks.{network}"),
    "train": ("recipe", "networks.{network}"),
    "distil": ("recipe", "networks.{network}", "methods.{method}"),
    "evaluate": ("seeds", "recipe.threads"),
    "quantise": ("seeds", "quantise.{row}", "recipe.threads"),
    "quantise_fetch": ("quantise_fetch.{network}", "recipe.threads"),
    "search": ("search.{search}", "recipe.augmentation", "recipe.threads"),
    "attention_maps": ("teacher", "attention_maps", "titles", "recipe.threads"),
    "compare": ("seeds", "fetch", "train", "train_from_teacher", "distil", "distil_more", "teacher"),
    "report": (
        "seeds",
        "fetch",
        "train",
        "train_from_teacher",
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
"""Keys of params.yaml that each stage depends on."""

CHECK = "check"
"""DVC's first stage, which every other depends on: it rejects an invalid params.yaml before DVC deletes an output or
runs a command. Snakemake does without: it reads params.yaml by the same rules whenever it reads its Snakefile."""

PLANNED = "MOONSHINE_PLANNED_PARAMS"
"""Environment variable with the params that Snakemake planned with, as JSON."""
