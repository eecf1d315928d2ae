"""A copy of this project with an experiment of its own, and commands run in it as a user runs them."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from moonshine.runtime.startup import TUNABLES, VARIABLE

ROOT = Path(__file__).parent.parent
TRACKED_BY_COPY = (
    "moonshine",
    "workflow",
    "containers",
    "requirements",
    "dvc.yaml",
    "params.yaml",
    ".dvcignore",
    ".gitattributes",
    ".gitignore",
    ".githooks",
    "Makefile",
    "pyproject.toml",
)

IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org")

Runner = Callable[..., subprocess.CompletedProcess[str]]


def load_params_dict(path: Path = ROOT / "params.yaml") -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def toy_params() -> dict[str, Any]:
    """Digits at toy size: two rows, one seed, two epochs of thin networks; some seconds a row."""
    params = copy.deepcopy(load_params_dict())
    del params["quantise"]
    thin = {"arch": "resnet18", "stem": "3x3", "channels": [4, 4, 8, 8]}
    params.update(
        experiment="toy",
        seeds=[0],
        networks={"teacher": thin, "student": {**thin, "conv": "G(N)"}},
        teacher="train/teacher/seed0",
        methods={"at": {"beta": 30.0, "groups": [1, 2, 3, 4]}},
        train=["teacher"],
        distil={"networks": ["student"], "methods": ["at"]},
        titles={"train/teacher": "Teacher", "distil/at/student": "Student"},
        tables=[
            {
                "name": "all",
                "title": "All",
                "caption": "A teacher and its student.",
                "rows": ["train/teacher", "distil/at/student"],
                "columns": ["parameters", "top1", "top5"],
            }
        ],
    )
    params["attention_maps"] = {
        "scratch": "train/teacher/seed0",
        "distilled": "distil/at/student/seed0",
        "images": [0, 7],
    }
    params["recipe"] = {
        "epochs": 2,
        "batch_size": 128,
        "lr": 0.05,
        "lr_steps": [1],
        "lr_factor": 0.1,
        "momentum": 0.9,
        "weight_decay": 1.0e-4,
        "augmentation": {"pad": 1, "flip": False},
        "precision": "float32",
        "compile": False,
        "threads": 1,
    }
    return params


def write_params(folder: Path, params: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(params))  # one object used twice would be dumped as an alias
    (folder / "params.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))


def environment(**extra: str) -> dict[str, str]:
    """This process's environment with this interpreter's programs first, whatever is activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours = {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", VARIABLE: TUNABLES}
    return {**os.environ, **ours, **extra}


def start_and_run(*command: str, cwd: Path, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
    """As a user's shell does."""
    return checked_result(
        subprocess.run(command, cwd=cwd, env=environment(**extra), capture_output=True, text=True), check
    )


def checked_result(result: subprocess.CompletedProcess[str], check: bool) -> subprocess.CompletedProcess[str]:
    if check and result.returncode:
        raise AssertionError(f"{' '.join(result.args)}: exit {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


def copy_this_project(folder: Path, params: dict[str, Any], run: Runner = start_and_run) -> Path:
    """A project of its own in `folder`: the code (compiled as here), git, DVC, and an experiment that has not run."""
    for name in TRACKED_BY_COPY:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("*.sif", "*.pyc.*"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    write_params(folder, params)
    run("git", "init", "--quiet", cwd=folder)
    run("dvc", "init", "--quiet", cwd=folder)
    commit_all(folder, "start")
    return folder


def commit_all(project: Path, message: str = "change") -> None:
    start_and_run("git", "add", ".", cwd=project)
    start_and_run("git", *IDENTITY, "commit", "--quiet", "--message", message, cwd=project)
