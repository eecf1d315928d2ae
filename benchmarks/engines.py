"""What the engines cost when nothing is to be done, here and on a bare graph of as many stages that do nothing."""

import subprocess
from pathlib import Path

import yaml

from benchmarks.pairs import Comparison, compare_calls, timed

STATUS = ("dvc", "repro"), ("snakemake", "--dry-run", "--quiet")


def nothing_to_do(project: Path, bare: Path) -> dict[str, Comparison]:
    """Both engines on a finished project, beside themselves on a bare graph made in the folder `bare`."""
    stages = len(
        subprocess.run(["dvc", "stage", "list", "--name-only"], cwd=project, capture_output=True).stdout.split()
    )
    make_bare_graph(bare, stages)
    found = {}
    for command in STATUS:
        found[" ".join(command)] = compare_calls(
            lambda command=command: timed(command, cwd=project),  # type: ignore[misc]
            lambda command=command: timed(command, cwd=bare),  # type: ignore[misc]
        )
    return found


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
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
