"""The two graphs are one: same stages, inputs, outputs and commands, held against each other without data."""

import re
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from benchmarks.separate_project import ROOT, load_params_dict
from moonshine.checks.input_folders import TEXTS
from moonshine.project.artefacts import PARAMS_CHECKED
from moonshine.project.graph import CHECK, CODE, PARAMS, SOURCES
from tests.support.project import copy_project, run, run_moonshine, toy_params
from tests.support.small_search import SEARCH

LAUNCHER = "containers/run "
EXPERIMENTS = [
    pytest.param(path, id=path.stem, marks=[] if path.stem in ("cifar10", "digits", "imagenet") else pytest.mark.slow)
    for path in sorted((ROOT / "experiments").glob("*.yaml"))
]


def dvc_graph(project: Path) -> dict[frozenset[str], tuple[str, frozenset[str], str]]:
    """Outputs -> (stage, dependencies, command), without the check of params.yaml and what makes all others come after.

    Snakemake checks it while it reads its Snakefile.
    """
    graph = {}
    with Repo(str(project)) as repo:
        for stage in repo.index.stages:
            paths = [
                [str(Path(item.fs_path).relative_to(project)) for item in items] for items in (stage.outs, stage.deps)
            ]
            outputs, inputs = frozenset(paths[0]), frozenset(paths[1]) - {"params.yaml"}
            assert stage.cmd.startswith(LAUNCHER)
            kind, command = stage.name.split("@")[0], stage.cmd.removeprefix(LAUNCHER)
            if kind == CHECK:
                assert (outputs, command) == ({str(PARAMS_CHECKED)}, "python -m moonshine check --keys")
            else:
                assert str(PARAMS_CHECKED) in inputs, kind
                graph[outputs] = (kind, inputs - {str(PARAMS_CHECKED)}, command)
    return graph


def snakemake_graph(project: Path) -> dict[frozenset[str], tuple[str, frozenset[str], str]]:
    """The same from the plan that Snakemake prints."""
    plan = run("snakemake", "--dry-run", "--forceall", "--printshellcmds", "--nolock", cwd=project)
    graph = {}
    for block in re.split(r"^(?=(?:local)?rule )", plan.stdout, flags=re.MULTILINE)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)
        fields = dict(re.findall(r"^    (input|output): (.*)$", block, re.MULTILINE))
        command = re.search(r"^Shell command: (.*)$", block, re.MULTILINE)
        if rule and command and "output" in fields:
            outputs, inputs = (frozenset(fields[key].split(", ")) for key in ("output", "input"))
            graph[outputs] = (rule[1], inputs, command[1])
    return graph


def as_folders(inputs: frozenset[str], folders: set[str]) -> frozenset[str]:
    """DVC depends on the folder of gathered files; map Snakemake's files to it."""
    return frozenset(next((f for f in folders if path.startswith(f + "/")), path) for path in inputs)


@pytest.mark.parametrize("params", EXPERIMENTS)
def test_both_engines_have_the_same_graph(params: Path, tmp_path: Path) -> None:
    require_the_same_graph(copy_project(tmp_path / "project", load_params_dict(params)))


def test_both_engines_wait_for_the_teacher_whose_weights_a_training_begins_with(tmp_path: Path) -> None:
    """A student and its control on the labels alone, which are one network."""
    params = toy_params()
    params["networks"]["student"]["init"] = "teacher"
    params["train_from_teacher"] = ["student"]
    project = copy_project(tmp_path / "project", params)
    require_the_same_graph(project)
    model = "models/toy/train/{}/seed0.safetensors"
    graph = {kind: (outputs, inputs) for outputs, (kind, inputs, _) in dvc_graph(project).items()}
    assert model.format("student") in graph["train_from_teacher"][0]
    assert model.format("teacher") in graph["train_from_teacher"][1]
    assert model.format("teacher") not in graph["train"][1]


def test_both_engines_quantise_the_same_rows(tmp_path: Path) -> None:
    """Trained, distilled and published ones, each with settings of its own."""
    params = toy_params()
    settings = {"images": 64, "per_tensor": False, "reduce_range": False}
    params["fetch"] = {"student": {"url": "net.pth", "sha256": 64 * "0"}}
    params["quantise"] = {"train/teacher": settings, "distil/at/student": {**settings, "images": 32}}
    params["quantise_fetch"] = {"student": settings}
    project = copy_project(tmp_path / "project", params)
    require_the_same_graph(project)
    commands = {command for _, _, command in dvc_graph(project).values()}
    assert {f"python -m moonshine quantise {row}" for row in (*params["quantise"], "fetch/student")} <= commands


def test_both_engines_search_and_only_the_report_waits_for_it(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", {**toy_params(), "search": {"one": SEARCH, "two": SEARCH}})
    require_the_same_graph(project)
    graph = dvc_graph(project)
    found = {f"results/toy/search/{name}.json" for name in ("one", "two")}
    assert {path for outputs, (kind, _, _) in graph.items() for path in outputs if kind == "search"} == found
    waiting = {kind for kind, inputs, _ in graph.values() if "results/toy/search" in inputs or found & inputs}
    assert waiting == {"report"}


def require_the_same_graph(project: Path) -> None:
    of_dvc, of_snakemake = dvc_graph(project), snakemake_graph(project)
    assert len(of_dvc) > 5
    assert of_dvc.keys() == of_snakemake.keys()
    params = load_params_dict(project / "params.yaml")
    results = f"results/{params['experiment']}"
    empty = {"report": {f"{results}/latency"}, "search": {f"{results}/block-latency"}}
    if not params.get("search"):
        empty["report"].add(f"{results}/search")
    for outputs, (stage, declared, command) in of_dvc.items():
        inputs = declared - set().union(*empty.values())  # folders in which Snakemake has no file to depend on yet
        assert declared - inputs == empty.get(stage, set())
        rule, files, shell = of_snakemake[outputs]
        folders = {path for path in inputs if not Path(path).suffix}
        assert (stage, inputs, command) == (rule, as_folders(files, folders), shell)


def test_a_fresh_clone_plans_every_job_although_results_are_in_git(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", toy_params())
    page = project / "results" / "toy" / "README.md"
    page.parent.mkdir(parents=True)
    page.write_text("the committed page\n")
    plan = run("snakemake", "--dry-run", cwd=project)
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", plan.stdout, re.MULTILINE))
    assert jobs == {
        **dict.fromkeys(("all", "prepare", "train", "distil", "evaluate_train", "evaluate_distil"), "1"),
        **dict.fromkeys(("compare", "attention_maps", "report"), "1"),
        "total": "9",
    }


@pytest.mark.parametrize("name", TEXTS)
def test_dvc_does_without_measured_latencies_and_searches(name: str, tmp_path: Path) -> None:
    """`dvc status` names the missing folder, and DVC's first stage makes it before the report needs it."""
    project = copy_project(tmp_path / "project", toy_params())
    missing = re.compile(rf"deleted: +results/toy/{name}$", re.MULTILINE)
    assert missing.search(run("dvc", "status", "report@toy", cwd=project).stdout)
    run_moonshine("check", "--keys", cwd=project)
    assert not missing.search(run("dvc", "status", "report@toy", cwd=project).stdout)


def test_dvc_declares_the_code_that_stages_are_made_of() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        modules = {dep.removeprefix("moonshine/") for dep in stage["deps"] if dep.startswith("moonshine/")}
        source = {SOURCES.format(source="${dataset.source}")} if name.startswith("prepare") else set()
        assert modules == {*CODE[name if name in CODE else name.split("_")[0]], *source}, name
        assert "requirements/runtime.lock" in stage["deps"]


def test_dvc_declares_the_params_that_stages_go_by() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        keys = {key.replace("${item.", "{") for key in stage.get("params", [])}
        expected = set(PARAMS.get(name) or PARAMS.get(name.split("_")[0], ()))
        assert keys == expected - ({"seeds"} if name == "evaluate_fetch" else set()), name


def test_every_stage_depends_on_the_check_which_itself_has_nothing_of_params() -> None:
    """Whatever they say, also if `experiment` is a path or a command."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    check = stages.pop(CHECK)
    assert "params.yaml" in check["deps"]
    assert "${" not in str([check["cmd"], check["deps"], check["outs"]])
    assert [name for name, stage in stages.items() if str(PARAMS_CHECKED) not in stage["deps"]] == []
