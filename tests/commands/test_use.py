"""`moonshine use` puts a checked experiment in place, and nothing else."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from benchmarks.separate_project import ROOT, write_params
from moonshine.checks.input_folders import TEXTS, TEXTS_WITH_SEARCHES
from tests.support.project import ANOTHER_OWNER, copy_project, run_moonshine, toy_params


def test_an_experiment_is_put_in_place_to_the_letter(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    result = run_moonshine("use", "fashion-mnist", cwd=tmp_path)
    text = (ROOT / "experiments/fashion-mnist.yaml").read_text()
    assert (tmp_path / "params.yaml").read_text() == text
    assert "now experiments/fashion-mnist.yaml, 7 rows" in result.stderr
    for name in TEXTS:  # DVC needs these folders, and git keeps no empty ones
        committed = f"results/fashion-mnist/{name}/README.md"
        assert (tmp_path / committed).read_bytes() == (ROOT / committed).read_bytes()


@pytest.mark.parametrize("name", TEXTS)
def test_every_experiment_has_the_folders_of_inputs_in_git(name: str) -> None:
    texts = {(ROOT / f"results/{path.stem}/{name}/README.md").read_text() for path in ROOT.glob("experiments/*.yaml")}
    assert texts == {TEXTS[name]}


def test_every_experiment_with_searches_has_the_folder_of_blocks_in_git() -> None:
    searching = [path for path in ROOT.glob("experiments/*.yaml") if yaml.safe_load(path.read_text()).get("search")]
    assert searching
    texts = {(ROOT / f"results/{path.stem}/block-latency/README.md").read_text() for path in searching}
    assert texts == {TEXTS_WITH_SEARCHES["block-latency"]}


def test_the_experiment_in_place_is_one_of_them_so_that_it_can_be_put_back() -> None:
    in_place = (ROOT / "params.yaml").read_text()
    assert in_place in [path.read_text() for path in (ROOT / "experiments").glob("*.yaml")]


def test_the_readme_lists_every_experiment() -> None:
    _, table = (ROOT / "README.md").read_text().split("| `moonshine use` |")
    cells = [line.split("|")[1] for line in table.split("\n\n")[0].splitlines()[2:]]
    listed = re.findall("`(.+?)`", "".join(cells))
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def test_changes_that_are_kept_nowhere_else_are_not_overwritten(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", toy_params())
    shutil.copytree(ROOT / "experiments", project / "experiments")
    run_moonshine("use", "digits", cwd=project)  # the toy experiment is in git
    write_params(project, toy_params())
    result = run_moonshine("use", "cifar10", cwd=project, check=False, **ANOTHER_OWNER)
    assert result.returncode == 5
    assert result.stderr.startswith("error: git refuses: fatal: detected dubious ownership in repository at ")
    edited = (project / "params.yaml").read_text() + "# mine\n"
    (project / "params.yaml").write_text(edited)
    result = run_moonshine("use", "cifar10", cwd=project, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: params.yaml: has changes that would be lost; commit them, or keep them as")
    assert (project / "params.yaml").read_text() == edited
    shutil.copy(project / "params.yaml", project / "experiments" / "mine.yaml")
    run_moonshine("use", "cifar10", cwd=project)
    run_moonshine("use", "mine", cwd=project)
    assert (project / "params.yaml").read_text() == edited


def test_what_it_wrote_is_overwritten_although_the_experiment_has_been_edited_since(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    experiment = tmp_path / "experiments/mine.yaml"
    for seeds in ("[0]", "[0, 1]"):
        experiment.write_text((ROOT / "experiments/digits.yaml").read_text().replace("[0, 1, 2, 3, 4]", seeds))
        run_moonshine("use", "mine", cwd=tmp_path)
        assert (tmp_path / "params.yaml").read_text() == experiment.read_text()


def test_a_wrong_or_unknown_experiment_leaves_params_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    write_params(tmp_path, toy_params())
    before = (tmp_path / "params.yaml").read_text()
    result = run_moonshine("use", "imagnet", cwd=tmp_path, check=False)
    assert (result.returncode, result.stderr) == (2, 'error: unknown experiment "imagnet" (did you mean "imagenet"?)\n')
    result = run_moonshine("use", "../params", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith('error: unknown experiment "../params" (known: ')
    (tmp_path / "experiments/wrong.yaml").write_text(before.replace("epochs:", "epohcs:"))
    result = run_moonshine("use", "wrong", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert 'experiments/wrong.yaml: recipe.epohcs: unknown key (did you mean "epochs"?)' in result.stderr
    assert (tmp_path / "params.yaml").read_text() == before
