"""What is up to date, asked of the finished ImageNet experiment and of bare graphs of as many stages."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks.finished_project import make_finished_imagenet
from benchmarks.pairs import Comparison, compare_calls, timed
from benchmarks.separate_project import environment

DVC_REPRO, DVC_STATUS = ("dvc", "repro"), ("dvc", "status")
SNAKEMAKE = ("snakemake", "--dry-run", "--quiet")
SYNC = (sys.executable, "-m", "moonshine", "sync")
CHAIN, SAME_INPUTS = "one input each", "the same inputs"
ROWS = [
    ("`dvc repro`", DVC_REPRO, [DVC_REPRO], SAME_INPUTS),
    ("`dvc repro`", DVC_REPRO, [DVC_REPRO], CHAIN),
    ("`snakemake --dry-run`", SNAKEMAKE, [SNAKEMAKE], CHAIN),
    ("`moonshine sync`", SYNC, [DVC_STATUS, SNAKEMAKE], CHAIN),
]
"""Our command, what is run on the bare graph beside it, one after the other, and what that graph's stages have."""


def nothing_to_do(folder: Path) -> Iterator[tuple[str, str, Comparison]]:
    """The command, its peer and how they compare."""
    project, bare = folder / "imagenet", {CHAIN: folder / "chain", SAME_INPUTS: folder / "same-inputs"}
    make_finished_imagenet(project)
    stages = len(list_stages(project))
    make_bare_graph(bare[CHAIN], stages)
    write_out(project, bare[SAME_INPUTS])
    for name, ours, peers, inputs in ROWS:

        def our_seconds(command: tuple[str, ...] = ours) -> float:
            return timed(command, cwd=project, env=environment())

        def peer_seconds(commands: list[tuple[str, ...]] = peers, graph: Path = bare[inputs]) -> float:
            return sum(timed(command, cwd=graph, env=environment()) for command in commands)

        our_seconds(), peer_seconds()  # what is hashed or compiled once only
        words = " + ".join(f"`{' '.join(command[:2])}`" for command in peers)
        yield name, f"{words} on {stages} stages, {inputs}", compare_calls(our_seconds, peer_seconds)


def list_stages(project: Path) -> list[str]:
    listed = subprocess.run(
        ["dvc", "stage", "list", "--name-only"], cwd=project, env=environment(), check=True, capture_output=True
    )
    return listed.stdout.decode().split()


def write_out(project: Path, folder: Path) -> None:
    """The project's stages with their inputs and outputs for DVC, without matrices and params."""
    shutil.copytree(project, folder, symlinks=True)
    recorded = yaml.load((folder / "dvc.lock").read_text(), Loader=yaml.CSafeLoader)["stages"]
    graph = {
        f"stage{number}": {
            "cmd": stage["cmd"],
            "deps": [dependency["path"] for dependency in stage["deps"]],
            "outs": [{output["path"]: {"cache": False}} for output in stage["outs"]],
        }
        for number, stage in enumerate(recorded[name] for name in list_stages(project))
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": graph}))
    (folder / "dvc.lock").unlink()
    subprocess.run(["dvc", "commit", "-f", "-q"], cwd=folder, env=environment(), check=True, capture_output=True)


def make_bare_graph(folder: Path, stages: int) -> None:
    """A chain of stages, each copying the file of the one before; run once, so that nothing is left to do."""
    folder.mkdir(parents=True)
    (folder / "0.txt").write_text("start\n")
    rules, graph = [], {}
    for number in range(1, stages + 1):
        before, after = f"{number - 1}.txt", f"{number}.txt"
        command = f"cp {before} {after}"
        graph[f"stage{number}"] = {"cmd": command, "deps": [before], "outs": [{after: {"cache": False}}]}
        rules.append(f"rule stage{number}:\n    input: '{before}'\n    output: '{after}'\n    shell: '{command}'\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": graph}))
    (folder / "Snakefile").write_text(f"rule all:\n    input: '{stages}.txt'\n" + "\n".join(rules))
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["snakemake", "--cores", "1", "-q"],
        ["dvc", "commit", "-f", "-q"],
    ):
        subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
