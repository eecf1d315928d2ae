"""A repository of git and DVC with a little code in moonshine/, which both see as they see the project's."""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo

from benchmarks.separate_project import ROOT, commit_all, start_and_run

NOT_CODE = (
    "__pycache__/net.cpython-311.pyc",
    ".#net.py",
    "net.py~",
    ".net.py.swp",
    "notes.txt",
    ".ipynb_checkpoints/net.py",
    "sub/__pycache__/part.cpython-311.pyc",
    "sub/.#part.py",
)
"""What editors and caches leave in a folder of code."""


def make_code_project(folder: Path, files: Mapping[str, str], stages: Mapping[str, Any]) -> Path:
    """These files and stages of dvc.yaml, in one commit."""
    write_files(folder, files)
    shutil.copy(ROOT / ".dvcignore", folder)
    (folder / ".gitignore").write_text("/data/\n/cached*\n__pycache__/\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": dict(stages)}, sort_keys=False))
    start_and_run("git", "init", "--quiet", cwd=folder)
    with Repo.init(str(folder)):
        pass
    commit_all(folder)
    return folder


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def leave_behind(folder: Path, names: Iterable[str] = NOT_CODE) -> None:
    """Files of an editor or a cache."""
    write_files(folder, dict.fromkeys(names, "# not code of the project\n"))


def dvc_hashes(project: Path) -> dict[str, str]:
    """Path -> the hash that DVC has now for each folder or file of code that a stage depends on."""
    with Repo(str(project)) as repo:
        found = [(str(dep.def_path), dep) for stage in repo.index.stages for dep in stage.deps]
        return {path: str(dep.get_hash().value) for path, dep in found if path.startswith("moonshine/")}


RECORDED_STAGES: dict[str, Any] = {
    "train": {
        "matrix": {"seed": [0, 1]},
        "cmd": "true",
        "deps": ["moonshine/models", "requirements/runtime.lock", "numbers.txt"],
        "outs": ["cached-${item.seed}.txt"],
    },
    "report": {
        "cmd": "true",
        "deps": ["moonshine/report", "cached-0.txt"],
        "outs": [{"page.txt": {"cache": False}}],
    },
}
"""Two trainings whose results DVC caches, and a report that it does not."""


def make_recorded_project(folder: Path) -> Path:
    """The project of RECORDED_STAGES, whose outputs are there and, like the code, recorded in dvc.lock and in git."""
    files = {
        "moonshine/models/net.py": "WIDTH = 16  # as in the paper\n",
        "moonshine/report/table.py": "TABLE = []\n",
        "requirements/runtime.lock": "torch==2\n",
        "numbers.txt": "1 2 3\n",
        "cached-0.txt": "trained with seed 0\n",
        "cached-1.txt": "trained with seed 1\n",
        "page.txt": "a page\n",
    }
    make_code_project(folder, files, RECORDED_STAGES)
    with chdir(folder), Repo() as repo:
        repo.commit(force=True)
    commit_all(folder)
    return folder


def copy_recorded(project: Path, folder: Path) -> Path:
    """A copy to change and to run in, with the modification times of the original."""
    return shutil.copytree(project, folder, symlinks=True)
