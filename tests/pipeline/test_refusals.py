"""A wrong or hostile params.yaml stops both engines before they delete, run or write anything."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.separate_project import load_params_dict
from tests.support.project import copy_finished, files_below, run, run_moonshine

ENGINES = {"snakemake": ("snakemake", "--cores", "1"), "dvc": ("dvc", "repro")}
OWN = (".git/", ".snakemake/", ".dvc/tmp/", ".dvc/cache/")
"""Folders that engines and git keep notes in."""
EDITS = {
    "a typo": ("recipe.lr", "5e-2x", "recipe.lr: must be a number"),
    "a shell command as seed": ("seeds", [0, "3; touch HACKED"], "seeds.1: must be an integer"),
}
MORE_EDITS = {
    "a path as experiment": ("experiment", "../../outside", "experiment: must be of lower-case letters"),
    "backquotes in a method": ("methods.`touch HACKED`", {"beta": 1.0, "groups": [1]}, "methods.`touch HACKED`"),
    "a shell command as network": ("train", ["teacher", "x; touch HACKED #"], "train.1: String should match pattern"),
    "a shell command as method": ("distil.methods", ["at", "$(touch HACKED)"], "distil.methods.1: String should"),
    "a path as data set": ("dataset.name", "../../outside", "dataset.name: String should match pattern"),
    "paths as data sets": ("dataset.shared", ["../../outside"], "dataset.shared.0: String should match pattern"),
    "no data set": ("dataset.shared", [], "dataset: shared, licensed: one must be [digits]"),
    "a path as teacher": ("teacher", "../../outside", "teacher: no row produces"),
    "a newline for sbatch": ("machine.jobs", {"train": {"partition": "a\nb"}}, "machine.jobs.train.partition: String"),
    "an option for sbatch": ("machine.jobs", {"train": {"account": "-x"}}, "machine.jobs.train.account: String should"),
    "downloads among the code": ("machine.downloads", "moonshine", "machine.downloads: 'moonshine' must end in downl"),
    "an unknown key": ("recipe.lrr", 1, 'recipe.lrr: unknown key (did you mean "lr"?)'),
}
UNRESOLVABLE = {
    "a seed that is not in a list": ("seeds", 3),
    "an experiment that is a mapping": ("experiment", {"a": "b"}),
}
"""What DVC itself cannot fill into dvc.yaml; its message is its own."""


def edit(project: Path, key: str, value: Any) -> None:
    params = load_params_dict(project / "params.yaml")
    *parents, last = key.split(".")
    section = params
    for parent in parents:
        section = section[parent]
    section[last] = value
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def tree(project: Path) -> dict[str, str]:
    """Everything in the project and beside it, with its hash."""
    files = files_below(project.parent)
    return {name: digest for name, digest in files.items() if not any(f"/{own}" in name for own in OWN)}


@pytest.fixture(scope="module")
def project(by_snakemake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refusals") / "outer" / "inner"  # paths in params.yaml may lead two folders up
    folder.mkdir(parents=True)
    return copy_finished(by_snakemake, folder / "project")


@pytest.fixture
def refused(project: Path) -> Callable[..., str]:
    """Run an engine, which must fail, say why in one line and change nothing; returns what it printed."""

    def run_engine(*command: str) -> str:
        before, status = tree(project.parent.parent), run("git", "status", "--porcelain", cwd=project).stdout
        result = run(*command, cwd=project, check=False)
        said = result.stdout + result.stderr
        assert result.returncode != 0, said
        assert "Traceback" not in said
        assert tree(project.parent.parent) == before
        assert run("git", "status", "--porcelain", cwd=project).stdout == status
        return said

    return run_engine


@pytest.fixture
def wrong_params(project: Path) -> Iterator[Callable[[str, Any], None]]:
    """Edits params.yaml, which is put back afterwards."""
    good = (project / "params.yaml").read_bytes()
    yield functools.partial(edit, project)
    (project / "params.yaml").write_bytes(good)


def require_refusal(said: str, line: str) -> None:
    errors = [each for each in said.splitlines() if each.startswith("error: ")]
    assert errors, said
    assert errors[0].startswith(f"error: params.yaml: {line}")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("key", "value", "line"), EDITS.values(), ids=EDITS)
def test_an_engine_refuses_before_anything_is_deleted_or_run(
    engine: str, key: str, value: Any, line: str, refused: Callable[..., str], wrong_params: Callable[[str, Any], None]
) -> None:
    wrong_params(key, value)
    require_refusal(refused(*ENGINES[engine]), line)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("key", "value", "line"), MORE_EDITS.values(), ids=MORE_EDITS)
def test_an_engine_refuses_whatever_is_wrong(
    engine: str, key: str, value: Any, line: str, refused: Callable[..., str], wrong_params: Callable[[str, Any], None]
) -> None:
    wrong_params(key, value)
    require_refusal(refused(*ENGINES[engine]), line)


@pytest.mark.slow
@pytest.mark.parametrize(("key", "value"), UNRESOLVABLE.values(), ids=UNRESOLVABLE)
def test_what_dvc_cannot_fill_into_the_graph_deletes_nothing(
    key: str, value: Any, refused: Callable[..., str], wrong_params: Callable[[str, Any], None]
) -> None:
    wrong_params(key, value)
    assert "ERROR: " in refused(*ENGINES["dvc"])


@pytest.mark.parametrize("mode", [("--cores", "1"), pytest.param(("--dry-run",), marks=pytest.mark.slow)])
@pytest.mark.parametrize("given", [("--config", "experiment=other"), ("--configfile", "dvc.yaml")])
def test_snakemake_takes_no_other_config(
    mode: tuple[str, ...], given: tuple[str, ...], refused: Callable[..., str]
) -> None:
    said = refused("snakemake", *mode, *given)
    assert "\nerror: --config and --configfile: stages read params.yaml alone; edit it, or run `moonshine use " in said


def test_after_refusals_nothing_is_to_be_done(project: Path) -> None:
    assert "Nothing to be done" in run("snakemake", "--dry-run", cwd=project).stdout
    assert "up to date" in run("dvc", "status", cwd=project).stdout


@pytest.mark.slow
def test_a_file_with_sorted_keys_is_the_same_to_snakemake_and_gives_the_same_report(
    project: Path, wrong_params: Callable[[str, Any], None]
) -> None:
    """`wrong_params` puts the file back."""
    params = load_params_dict(project / "params.yaml")
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=True))
    assert "Nothing to be done" in run("snakemake", "--dry-run", cwd=project).stdout
    assert json.loads(run("dvc", "status", "--json", cwd=project).stdout).keys() == {"check@toy"}
    before = files_below(project / "results")
    run_moonshine("report", cwd=project)
    assert files_below(project / "results") == before
