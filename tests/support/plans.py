"""The toy experiment's stages, edits of its project, and what each engine plans."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx
import yaml
from dvc.repo import Repo

from benchmarks.separate_project import write_params
from tests.support.project import run

TRAIN, DISTIL = "train@toy-teacher-0", "distil@toy-at-student-0"
EVALUATE_TRAIN, EVALUATE_DISTIL = "evaluate_train@toy-teacher", "evaluate_distil@toy-at-student"
COMPARE, MAPS, REPORT = "compare@toy", "attention_maps@toy", "report@toy"
CHECK = "check@toy"
AFTER_DISTIL = {DISTIL, EVALUATE_DISTIL, COMPARE, MAPS, REPORT}
AFTER_TRAIN = {TRAIN, EVALUATE_TRAIN, *AFTER_DISTIL}
ALL = {"prepare@digits", *AFTER_TRAIN}


def params_change(**changes: Any) -> Callable[[Path], None]:
    """Set values in params.yaml; `a__b` is the key b of section a."""

    def change(project: Path) -> None:
        params = yaml.safe_load((project / "params.yaml").read_text())
        for path, value in changes.items():
            *sections, key = path.split("__")
            place = params
            for section in sections:
                place = place[section]
            place[key] = value
        write_params(project, params)

    return change


def comment(module: str) -> Callable[[Path], None]:
    return lambda project: append(project / module, b"# reworded\n")


def append(path: Path, content: bytes) -> None:
    path.write_bytes(path.read_bytes() + content)


def planned_by_dvc(project: Path) -> set[str]:
    """The stages of `dvc status` and all that depend on them, without the check of params.yaml: it changes nothing."""
    listed = set(json.loads(run("dvc", "status", "--json", cwd=project).stdout)) - {CHECK}
    with Repo(str(project)) as repo:
        graph = networkx.relabel_nodes(repo.index.graph, {stage: stage.name for stage in repo.index.graph})
    return listed.union(*(networkx.ancestors(graph, name) for name in listed))


def planned_by_snakemake(project: Path) -> set[str]:
    """Rule and wildcards of every job of `snakemake -n`, as DVC names them."""
    plan = run("snakemake", "--dry-run", cwd=project).stdout
    jobs = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", plan, re.MULTILINE)
    wildcards = [re.search(r"^    wildcards: (.*)$", fields, re.MULTILINE) for _, fields in jobs]
    values = [re.findall(r"\w+=([^,]+)", found[1]) if found else [] for found in wildcards]
    return {f"{rule}@{'-'.join(words)}" for (rule, _), words in zip(jobs, values) if rule != "all"}
