"""The projects on which `make bench` measures what it costs to find that nothing is to be done."""

from pathlib import Path

import pytest
import ruamel.yaml

from benchmarks.engines import list_stages, make_bare_graph, write_out
from benchmarks.finished_project import make_finished_imagenet
from benchmarks.separate_project import ROOT, load_params_dict
from tests.support.project import run, run_moonshine


def test_dvc_parses_its_files_in_c() -> None:
    assert ruamel.yaml.__with_libyaml__


@pytest.mark.parametrize(
    "path",
    [ROOT / name for name in ("dvc.yaml", "dvc.lock", "params.yaml")] + sorted(ROOT.glob("experiments/*.yaml")),
    ids=lambda path: path.stem + path.suffix,
)
def test_the_parser_in_c_reads_what_the_one_in_python_reads(path: Path) -> None:
    text = path.read_text()
    assert ruamel.yaml.YAML(typ="safe").load(text) == ruamel.yaml.YAML(typ="safe", pure=True).load(text)


def assert_nothing_to_do(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    repro = run("dvc", "repro", cwd=project).stdout
    assert "Running stage" not in repro
    assert "up to date" in repro
    assert "Nothing to be done" in run("snakemake", "--dry-run", cwd=project).stdout
    assert (project / "dvc.lock").read_bytes() == before


@pytest.mark.slow
def test_the_measured_projects_are_finished_and_have_as_many_stages(tmp_path: Path) -> None:
    project, bare, same = tmp_path / "imagenet", tmp_path / "bare", tmp_path / "same"
    make_finished_imagenet(project)
    assert load_params_dict(project / "params.yaml") == load_params_dict(ROOT / "experiments/imagenet.yaml")
    assert_nothing_to_do(project)
    said = run_moonshine("sync", cwd=project).stderr
    assert "Snakemake and dvc.lock agree" in said
    assert "nothing to be run by either engine" in said
    make_bare_graph(bare, len(list_stages(project)))
    assert_nothing_to_do(bare)
    write_out(project, same)
    assert "up to date" in run("dvc", "repro", cwd=same).stdout
    assert len(list_stages(bare)) == len(list_stages(same)) == len(list_stages(project))
