"""A teacher that was trained on other classes: it teaches by attention alone, and nothing measures its errors."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.separate_project import commit_all, write_params
from moonshine.models.architecture import architecture_of
from moonshine.models.model_file import load_model, read_description
from moonshine.models.networks import initialise
from moonshine.params.schema import Network, Params
from moonshine.report.headline import headline
from moonshine.report.protocol import protocol
from moonshine.runtime.files import sha256
from tests.pipeline.test_both_graphs import dvc_graph, require_the_same_graph
from tests.support.plans import planned_by_dvc, planned_by_snakemake
from tests.support.project import copy_project, files_below, run, run_moonshine, toy_params

TEACHER = "models/toy/fetch/teacher.safetensors"
STUDENT = "models/toy/distil/at/student/seed0.safetensors"
SEED = ("--seed", "0")


def params_for(classes: int = 7, sha256: str = "0" * 64) -> dict[str, Any]:
    """The toy experiment with a teacher from a file, and a student that begins with its weights."""
    params = toy_params()
    params["networks"]["student"]["init"] = "teacher"
    params["fetch_teacher"] = {"teacher": {"url": "net.pth", "sha256": sha256, "classes": classes}}
    params.update(teacher="fetch/teacher", train=[], train_from_teacher=["student"])
    params["titles"] = {"fetch/teacher": "Teacher of others", "distil/at/student": "Student"}
    params["tables"][0]["rows"] = ["train/student", "distil/at/student"]
    params["attention_maps"]["scratch"] = "train/student/seed0"
    params["recipe"].update(epochs=1, lr_steps=[])
    return params


def write_published(folder: Path, classes: int) -> str:
    """net.pth, a network of so many classes; returns its sha256."""
    network = initialise(architecture_of(Network(**toy_params()["networks"]["teacher"]), classes, 1), 1)
    torch.save(network.state_dict(), folder / "net.pth")
    return sha256(folder / "net.pth")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other-classes")
    write_params(folder, toy_params())
    run_moonshine("prepare", cwd=folder)
    return folder


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared / "data", tmp_path / "data")
    write_params(tmp_path, params_for(7, write_published(tmp_path, 7)))
    return tmp_path


def test_the_network_is_built_and_published_with_its_own_classes(project: Path) -> None:
    run_moonshine("check", cwd=project)
    run_moonshine("fetch", "teacher", cwd=project)
    network, description = load_model(project / TEACHER, "fetch/teacher")
    assert network(torch.zeros(2, 1, 12, 12)).shape == (2, 7)
    assert description["classes"] == [f"class {number}" for number in range(7)]
    record = json.loads((project / "models/toy/records/fetch/teacher.json").read_text())
    assert record["classes"] == 7
    assert re.search(r"\| teacher, 7 classes +\| resnet18 ", run_moonshine("describe", cwd=project).stdout)
    assert run_moonshine("describe", "teacher", cwd=project).stdout.startswith("7 classes, 1 x 12 x 12 pixels")
    Image.new("L", (12, 12)).save(project / "grey.png")
    shown = run_moonshine("predict", TEACHER, "grey.png", "--top", "1", cwd=project).stdout
    assert re.search(r"%  class \d\n$", shown)


def test_another_number_of_classes_makes_it_outdated(project: Path) -> None:
    run_moonshine("fetch", "teacher", cwd=project)
    params = params_for(8, sha256(project / "net.pth"))
    write_params(project, params)
    reasons = {each["row"]: each["reason"] for each in json.loads(status(project))["runs"]}
    assert reasons["fetch/teacher"] == "outdated (fetch.classes: 7 -> 8; network.classes: 7 -> 8)"
    refused = run_moonshine("fetch", "teacher", cwd=project, check=False)
    assert refused.returncode == 8
    assert "fc.weight is for 7 classes, the network has 8" in refused.stderr


@pytest.mark.parametrize("classes", [7, 10])
def test_a_student_takes_its_weights_but_not_its_head(classes: int, project: Path) -> None:
    """Not even if both have ten classes, because they are not the same ones."""
    write_params(project, params_for(classes, write_published(project, classes)))
    run_moonshine("fetch", "teacher", cwd=project)
    said = run_moonshine("distil", "at/student", *SEED, cwd=project).stderr
    given = load_model(project / TEACHER)[0].state_dict()
    own = load_model(project / STUDENT)[0].state_dict()
    fitting = [n for n in given if n in own and given[n].shape == own[n].shape and not n.startswith("fc.")]
    words = f"begins with {len(fitting)} of the {len(given)} tensors of fetch/teacher, those that fit"
    assert f"distil/at/student: {words}; its classifier head is new\n" in said
    assert read_description(project / STUDENT)["architecture"]["classes"] == 10
    identity = json.loads((project / "models/toy/records/distil/at/student/seed0.json").read_text())["identity"]
    assert identity["teacher"] == sha256(project / TEACHER)


def test_its_errors_are_not_measured(project: Path) -> None:
    run_moonshine("fetch", "teacher", cwd=project)
    result = run_moonshine("evaluate", "fetch/teacher", cwd=project, check=False)
    assert result.returncode == 2
    line = "fetch/teacher: is for other classes than the data set (fetch_teacher); its errors mean nothing"
    assert result.stderr == f"error: {line}\n"
    assert json.loads(status(project))["measured"] == []
    assert "0 of 2 rows measured" in run_moonshine("status", cwd=project).stdout


def test_the_page_says_why_it_has_no_error() -> None:
    params = Params(**params_for())
    text = protocol(params, {})
    assert "Networks without published weights are trained for 1 epoch" in text
    assert " The teacher, Teacher of others, was trained on other classes, so its error is not measured." in text
    shown = headline(params, {})["teacher"]
    assert (shown["title"], shown["top1"], shown["other_classes"]) == ("Teacher of others", None, True)
    assert "other classes" not in protocol(Params(**toy_params()), {})


def with_method(**keys: Any) -> dict[str, Any]:
    return {"methods": {"at": {"beta": 30.0, "groups": [1, 2, 3, 4], **keys}}}


OTHER = {"url": "net.pth", "sha256": "0" * 64}
USED = "is in fetch_teacher, for other classes; add a network of another name for this"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "knowledge distillation": (
        with_method(alpha=0.9, temperature=4.0),
        "methods.at: fetch/teacher has other classes than the data set (fetch_teacher), so logits cannot be "
        "compared; transfer attention alone (beta and groups)",
    ),
    "no number of classes": (
        {"fetch_teacher": {"teacher": OTHER}},
        "fetch_teacher.teacher.classes: missing key; the number of classes that the checkpoint is for",
    ),
    "classes in fetch": (
        {"fetch": {"teacher": {**OTHER, "classes": 7}}, "fetch_teacher": {}},
        "fetch.teacher.classes: its errors on other classes mean nothing; move teacher to fetch_teacher",
    ),
    "in fetch as well": ({"fetch": {"teacher": OTHER}}, f"fetch: teacher {USED}"),
    "trained": ({"train": ["teacher"]}, f"train: teacher {USED}"),
    "distilled": ({"distil": {"networks": ["teacher"], "methods": ["at"]}}, f"distil.networks: teacher {USED}"),
    "an unknown network": (
        {"fetch_teacher": {"teecher": {**OTHER, "classes": 7}}},
        'fetch_teacher: unknown network "teecher" (did you mean "teacher"?)',
    ),
    "its normalisation": (
        {"fetch_teacher": {"teacher": {**OTHER, "classes": 7, "normalisation": {"mean": [0.5] * 3, "std": [0.5]}}}},
        "fetch_teacher.teacher.normalisation.mean: 3 values, but images of 1 channels",
    ),
}


@pytest.mark.parametrize(("change", "line"), REFUSED.values(), ids=REFUSED)
def test_what_needs_the_data_sets_classes_is_refused(change: dict[str, Any], line: str, tmp_path: Path) -> None:
    write_params(tmp_path, {**params_for(), **change})
    result = run_moonshine("check", "--keys", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert f"error: params.yaml: {line}\n" in result.stderr


def test_it_may_be_in_no_table(tmp_path: Path) -> None:
    params = params_for()
    params["tables"][0]["rows"].append("fetch/teacher")
    write_params(tmp_path, params)
    result = run_moonshine("check", "--keys", cwd=tmp_path, check=False)
    assert result.stderr == (
        "error: params.yaml: tables.all.rows: fetch/teacher has other classes than the data set; leave it out\n"
    )


def test_one_that_teaches_nobody_is_warned_of(project: Path) -> None:
    params = params_for(7, sha256(project / "net.pth"))
    params["networks"]["other"] = params["networks"]["teacher"]
    params["fetch_teacher"]["other"] = params["fetch_teacher"]["teacher"]
    write_params(project, params)
    said = run_moonshine("check", cwd=project).stderr
    assert "warning: params.yaml: fetch_teacher.other: is not the teacher, so no student learns from it\n" in said


def test_use_fills_in_the_rest_of_a_short_experiment(project: Path) -> None:
    (project / "experiments").mkdir()
    (project / "experiments/short.yaml").write_text("""experiment: short
dataset: {source: digits, size: 12}
recipe: {epochs: 2, batch_size: 128, lr: 0.05}
networks:
  teacher: {arch: resnet18, stem: 3x3}
  student: {arch: resnet18, stem: 3x3, conv: G(N)}
teacher: fetch/teacher
fetch_teacher: {teacher: {url: net.pth, classes: 7}}
methods: {at: {beta: 30.0}}
""")
    (project / "params.yaml").unlink()
    run_moonshine("use", "short", cwd=project)
    text = (project / "params.yaml").read_text()
    assert f"sha256: {sha256(project / 'net.pth')}" in text
    assert "train: [student]  # default" in text
    assert "distil: {networks: [student], methods: [at]}  # default" in text
    assert "fetch/teacher" not in text.partition("tables:")[2].partition("columns")[0].partition("rows")[2]


def test_both_engines_fetch_it_and_evaluate_it_nowhere(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", params_for())
    require_the_same_graph(project)
    kinds = [kind for kind, _, _ in dvc_graph(project).values()]
    assert "fetch_teacher" in kinds
    assert not {"fetch", "evaluate_fetch"} & set(kinds)


@pytest.mark.slow
def test_both_engines_run_the_whole_experiment(tmp_path: Path) -> None:
    projects = {name: copy_project(tmp_path / name, params_for()) for name in ("snakemake", "dvc")}
    for name, project in projects.items():
        write_params(project, params_for(7, write_published(project, 7)))
        commit_all(project)
        run(*{"snakemake": ("snakemake", "--cores", "1"), "dvc": ("dvc", "repro")}[name], cwd=project)
    project = projects["snakemake"]
    assert len(models := files_below(project / "models", ".safetensors")) == 3
    assert models == files_below(projects["dvc"] / "models", ".safetensors")
    suffixes = (".md", ".json", ".csv", ".svg", ".png", ".html")
    assert files_below(project / "results", *suffixes) == files_below(projects["dvc"] / "results", *suffixes)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()
    run_moonshine("verify", cwd=project)
    lines = run_moonshine("lineage", "distil/at/student", cwd=project).stdout
    assert re.search(r"models/toy/fetch/teacher\.safetensors: sha256", lines)
    assert re.search(r"\| Teacher of others +\| +other classes +\|", (project / "results/README.md").read_text())
    write_params(project, params_for(8, write_published(project, 8)))
    run_moonshine("sync", cwd=project)
    stale = planned_by_dvc(project)
    assert stale == planned_by_snakemake(project)
    assert {"fetch_teacher@toy-teacher", "distil@toy-at-student-0"} <= stale


def status(project: Path) -> str:
    return run_moonshine("status", "--json", cwd=project).stdout
