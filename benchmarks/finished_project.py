"""The finished ImageNet experiment as engines see it: every file of its graph is there, none of them is real."""

import shutil
from contextlib import chdir
from pathlib import Path

from moonshine.artefacts import PARAMS_CHECKED
from moonshine.engines.dvc_project import open_project
from moonshine.engines.record import commit
from moonshine.engines.snakemake_plan import snakemake
from tests.support import ROOT, copy_project, read_params


def make_finished_imagenet(folder: Path) -> None:
    """All rows of experiments/imagenet.yaml, recorded by both engines beside the experiments that dvc.lock has."""
    copy_project(folder, read_params(ROOT / "experiments" / "imagenet.yaml"))
    shutil.copy(ROOT / "dvc.lock", folder)
    with chdir(folder), open_project() as repo:
        for stage in repo.index.stages:
            for out in stage.outs:
                _write(Path(out.fs_path))
        snakemake("--touch", "--forceall", "--cores", "1", "--quiet", "all", "--")
        commit(repo, [stage.addressing for stage in repo.index.stages])


def _write(output: Path) -> None:
    """A file that differs from all others, or a folder with one; the output of the stage `check` is there already."""
    file = output if output.suffix else output / "content.csv"
    if file.name == PARAMS_CHECKED.name:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{file}\n")
