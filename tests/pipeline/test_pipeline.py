"""The whole pipeline at toy size, driven by each engine as a user drives it."""

import csv
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from benchmarks.separate_project import ROOT, environment, start_and_run, write_params
from moonshine.data.loading import SmallImages
from moonshine.drawing.attention_figure import Example
from moonshine.models.model_file import load_model, model_bytes
from moonshine.models.networks import initialise
from moonshine.params import Params
from moonshine.project.graph import CODE, PACKAGE, SOURCES, code_files
from moonshine.project.rows import Row
from moonshine.runs.identity import identity_hash, run_identity
from moonshine.runtime.files import read_checked_json, sha256, write_checked_json
from moonshine.stages.attention_maps import attention_maps
from tests.support.checkpoints import write_checkpoint
from tests.support.project import copy_finished, copy_project, files_below, once_per_run, run, run_moonshine, toy_params
from tests.support.small_search import SEARCH

CPU = torch.device("cpu")
OTHER_CLASSES = [f"class {number}" for number in range(10)]


@pytest.fixture(scope="module")
def by_dvc(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, set[str]]]:
    """The project after `dvc repro`, and the modules of this package that each stage imported."""

    def make(folder: Path) -> None:
        project, modules = copy_project(folder / "project", toy_params()), folder / "modules"
        modules.mkdir()
        recorder = str(Path(__file__).parent / "recorder")
        start_and_run("dvc", "repro", cwd=project, PYTHONPATH=recorder, MODULES_FOLDER=str(modules))
        extra = {"PYTHONPATH": f"{recorder}:{ROOT}", "MODULES_FOLDER": str(modules)}
        fetch_teacher(project, folder / "fetch", **extra)
        quantise_teacher(project, folder / "quantise", **extra)
        write_params(folder / "quantise", {**toy_params(), "search": {"small": SEARCH}})
        run_moonshine("search", "small", cwd=folder / "quantise", **extra)

    folder = once_per_run(tmp_path_factory, "by_dvc", make)
    return folder / "project", imported_modules(folder / "modules")


def fetch_teacher(project: Path, folder: Path, **extra: str) -> None:
    """Fetch the project's own teacher as if others had published it."""
    shutil.copytree(project / "data", folder / "data")
    state = load_file(project / "models/toy/train/teacher/seed0.safetensors")
    digest = write_checkpoint(state, folder / "teacher.pth")
    write_params(folder, {**toy_params(), "fetch": {"teacher": {"url": "teacher.pth", "sha256": digest}}})
    run_moonshine("fetch", "teacher", cwd=folder, **extra)


def quantise_teacher(project: Path, folder: Path, **extra: str) -> None:
    for name in ("data", "models"):
        shutil.copytree(project / name, folder / name)
    settings = {"images": 64, "per_tensor": False, "reduce_range": False}
    write_params(folder, {**toy_params(), "quantise": {"train/teacher": settings}})
    run_moonshine("quantise", "train/teacher", cwd=folder, **extra)


def imported_modules(folder: Path) -> dict[str, set[str]]:
    """Stage -> modules, from the notes that each process of a run left."""
    imported: dict[str, set[str]] = {stage: set() for stage in CODE}
    for path in folder.iterdir():
        note = json.loads(path.read_text())
        imported[note["command"][0].replace("-", "_")].update(note["modules"])
    return imported


def module_file(name: str) -> str:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return str(path.relative_to(PACKAGE))


def test_engines_give_identical_models_and_tables(by_snakemake: Path, by_dvc: tuple[Path, dict[str, set[str]]]) -> None:
    ours = files_below(by_snakemake / "models", ".safetensors", ".parquet")
    assert len(ours) == 4
    assert ours == files_below(by_dvc[0] / "models", ".safetensors", ".parquet")
    results = files_below(by_snakemake / "results", ".md", ".json", ".csv", ".svg")
    assert len(results) >= 6
    assert results == files_below(by_dvc[0] / "results", ".md", ".json", ".csv", ".svg")


@pytest.mark.parametrize("stage", sorted(CODE.keys() - {"fetch_teacher", "quantise_fetch"}))  # with others' commands
def test_a_stage_imports_of_all_the_code_that_it_declares(stage: str, by_dvc: tuple[Path, dict[str, set[str]]]) -> None:
    """Else a folder that it has no use for would make its outputs stale."""
    imported = {module_file(name) for name in by_dvc[1][stage] if name.startswith("moonshine")}
    declared = [*CODE[stage], *([SOURCES.format(source="digits")] if stage == "prepare" else [])]
    assert [name for name in declared if imported.isdisjoint(code_files([name]))] == []


def test_no_stage_imports_the_compiler_that_it_does_not_use(by_dvc: tuple[Path, dict[str, set[str]]]) -> None:
    """PyTorch's exporter, which quantising needs, imports it."""
    compiling = [stage for stage, modules in by_dvc[1].items() if "torch._dynamo.convert_frame" in modules]
    assert compiling == ["quantise"]


def test_after_snakemake_dvc_has_nothing_to_do(by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    assert "up to date" in run("dvc", "status", cwd=project).stdout
    assert "Running stage" not in run("dvc", "repro", cwd=project).stdout
    assert "Nothing to be done" in run("snakemake", "--dry-run", cwd=project).stdout


@pytest.mark.slow
def test_an_edit_of_the_report_retrains_nothing(by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    module = project / "moonshine" / "report" / "tables.py"
    module.write_text(module.read_text() + "# reworded\n")
    plan = run("snakemake", "--dry-run", cwd=project)
    assert set(re.findall(r"^(?:local)?rule (\w+):", plan.stdout, re.MULTILINE)) == {"report", "all"}
    assert json.loads(run("dvc", "status", "--json", cwd=project).stdout).keys() == {"report@toy"}


def test_metrics_count_every_validation_image(by_snakemake: Path) -> None:
    metrics = json.loads((by_snakemake / "results/toy/metrics/train/teacher.json").read_text())
    manifest = json.loads((by_snakemake / "data/digits/manifest.json").read_text())
    assert metrics["n"] == metrics["seeds"]["0"]["n"] == manifest["splits"]["val"]["count"] == 600


def test_errors_and_loss_are_those_of_plain_pytorch(by_snakemake: Path) -> None:
    """In the metrics, and in the last line of the curve."""
    path = by_snakemake / "models/toy/train/teacher/seed0.safetensors"
    network, _ = load_model(path)
    images, labels = next(SmallImages(by_snakemake / "data/digits", "val", CPU).evaluation_batches(600))
    with torch.inference_mode():
        logits = network(images)
    rank = (logits > logits.gather(1, labels[:, None])).sum(1)
    metrics = json.loads((by_snakemake / "results/toy/metrics/train/teacher.json").read_text())
    assert metrics["top1"]["mean"] == pytest.approx(100 * (rank >= 1).double().mean().item(), abs=1e-5)
    assert metrics["top5"]["mean"] == pytest.approx(100 * (rank >= 5).double().mean().item(), abs=1e-5)
    assert metrics["loss"]["mean"] == pytest.approx(cross_entropy(logits, labels).item(), abs=1e-5)
    assert metrics["seeds"]["0"]["model_bytes"] == path.stat().st_size
    elements: list[int] = []
    for layer in (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)):
        layer.register_forward_hook(lambda layer, inputs, output: elements.append(output[0].numel()))
    network(images[:1])
    assert metrics["activations"] == sum(elements)
    with (by_snakemake / "results/toy/curves/train/teacher/seed0.csv").open() as file:
        epochs = list(csv.DictReader(file))
    assert float(epochs[-1]["val_top1"]) == pytest.approx(metrics["top1"]["mean"], rel=1e-5)
    assert [epoch["lr"] for epoch in epochs] == ["0.05", "0.005"]  # lr_steps: [1]


def test_predictions_are_those_of_plain_pytorch_and_hold_no_images(by_snakemake: Path) -> None:
    network, _ = load_model(by_snakemake / "models/toy/train/teacher/seed0.safetensors")
    images, labels = next(SmallImages(by_snakemake / "data/digits", "val", CPU).evaluation_batches(600))
    with torch.inference_mode():
        logits = network(images)
    frame = pd.read_parquet(by_snakemake / "models/toy/predictions/train/teacher/seed0.parquet")
    best = [f"best{place}" for place in range(1, 6)]
    assert list(frame) == ["index", "label", *best, "logits"]
    assert list(frame["label"]) == labels.tolist()
    np.testing.assert_array_equal(frame[best], logits.topk(5).indices)
    np.testing.assert_allclose(np.stack(frame["logits"]), logits, rtol=2e-3, atol=2e-3)


def test_balanced_error_and_confusions_are_of_the_predictions(by_snakemake: Path) -> None:
    metrics = json.loads((by_snakemake / "results/toy/metrics/train/teacher.json").read_text())
    frame = pd.read_parquet(by_snakemake / "models/toy/predictions/train/teacher/seed0.parquet")
    balanced = 100 * (frame["label"] != frame["best1"]).groupby(frame["label"]).mean().mean()
    assert metrics["balanced_error"]["mean"] == metrics["seeds"]["0"]["balanced_error"]
    assert metrics["balanced_error"]["mean"] == pytest.approx(balanced, abs=1e-5)
    counts = pd.read_csv(by_snakemake / "results/toy/confusion/train/teacher.csv")
    pd.testing.assert_frame_equal(
        counts[["label", "prediction", "images"]],
        frame.rename(columns={"best1": "prediction"})
        .groupby(["label", "prediction"])
        .size()
        .reset_index(name="images"),
        check_dtype=False,
    )


def test_a_published_network_has_one_file_of_predictions(
    by_snakemake: Path, by_dvc: tuple[Path, dict[str, set[str]]], tmp_path: Path
) -> None:
    """Its weights are the trained teacher's, so the bytes are the same, in another run and another folder."""
    project = copy_finished(by_dvc[0].parent / "fetch", tmp_path / "project")
    run_moonshine("evaluate", "fetch/teacher", cwd=project)
    ours = (project / "models/toy/predictions/fetch/teacher.parquet").read_bytes()
    assert ours == (by_snakemake / "models/toy/predictions/train/teacher/seed0.parquet").read_bytes()
    lines = (project / "results/toy/confusion/fetch/teacher.csv").read_text().splitlines()
    trained = (by_snakemake / "results/toy/confusion/train/teacher.csv").read_text().splitlines()
    assert lines[1:] == [line.removeprefix("0") for line in trained[1:]]


def test_predictions_of_a_former_seed_disappear(by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    former = project / "models/toy/predictions/train/teacher/seed7.parquet"
    former.write_bytes(b"of a seed that params.yaml no longer has")
    assert "evaluate_train@toy-teacher" in run("dvc", "status", cwd=project).stdout
    run_moonshine("evaluate", "train/teacher", cwd=project)
    assert not former.exists()
    assert "up to date" in run("dvc", "status", cwd=project).stdout


@pytest.mark.parametrize(
    "part", ["recipe", "network", "seed", "data", "code", "torch", "torchvision", "method", "teacher"]
)
def test_a_run_is_told_apart_by_all_that_determines_its_bytes(
    part: str, by_snakemake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(by_snakemake)
    identity = run_identity(Params.model_validate(toy_params()), Row.parse("distil/at/student"), 0)
    assert identity_hash({**identity, part: "another"}) != identity_hash(identity)


IN_COLOUR = {
    "input": [3, 12, 12],
    "normalisation": {"mean": [0.5] * 3, "std": [0.2] * 3},
    "architecture": {"arch": "resnet18", "classes": 10, "in_channels": 3},
}


def describe_teacher_otherwise(project: Path, **changes: Any) -> None:
    """The teacher's file with something else in its description, and a record that says so.

    Its weights are the same but where it is another network.
    """
    path = project / "models/toy/train/teacher/seed0.safetensors"
    network, description = load_model(path)
    if "architecture" in changes:
        network = initialise(changes["architecture"], 0)
    path.write_bytes(model_bytes(network, {**description, **changes}))
    record = project / "models/toy/records/train/teacher/seed0.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "sha256": sha256(path)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": OTHER_CLASSES}, "was trained on other classes than data/digits"),
        (IN_COLOUR, "takes images of 3 channels, data/digits has 1"),
    ],
    ids=["classes", "images"],
)
def test_a_teacher_of_other_images_or_classes_is_refused(
    change: dict[str, Any], words: str, by_snakemake: Path, tmp_path: Path
) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    write_params(project, {**toy_params(), "methods": {"at": {"alpha": 0.5, "temperature": 2.0}}})
    describe_teacher_otherwise(project, **change)
    result = run_moonshine("distil", "at/student", "--seed", "0", cwd=project, check=False)
    assert result.returncode == 3
    assert words in result.stderr


@pytest.mark.parametrize("change", [{"classes": OTHER_CLASSES}, IN_COLOUR], ids=["classes", "images"])
def test_evaluation_refuses_a_model_of_other_images_or_classes(
    change: dict[str, Any], by_snakemake: Path, tmp_path: Path
) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    describe_teacher_otherwise(project, **change)
    result = run_moonshine("evaluate", "train/teacher", cwd=project, check=False)
    assert result.returncode == 3
    assert "made for other classes or images than data/digits" in result.stderr


def test_training_refuses_another_count_than_the_manifests(by_snakemake: Path, tmp_path: Path) -> None:
    copy_finished(by_snakemake, tmp_path / "project")
    path = tmp_path / "project/data/digits/manifest.json"
    manifest = read_checked_json(path, "")
    manifest["splits"]["train"]["count"] = 1198
    write_checked_json(path, manifest)
    result = run_moonshine("train", "teacher", "--seed", "0", cwd=tmp_path / "project", check=False)
    assert result.returncode == 3
    assert "1197 images, but the manifest says 1198" in result.stderr
    assert "Traceback" not in result.stderr


def test_evaluation_sets_aside_what_former_seeds_and_rows_left(by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    former = project / "models/toy/train/teacher/seed7.safetensors"
    former.write_bytes(b"of a seed that params.yaml no longer has")
    row = project / "results/toy/confusion/train/former.csv"
    row.write_text("of a row that params.yaml no longer has")
    run_moonshine("evaluate", "train/teacher", cwd=project)
    for path in (former, row):
        assert not path.exists()
        assert (project / "runs/.leftovers" / path.relative_to(project)).exists()


def test_dvc_plots_the_published_curves(by_dvc: tuple[Path, dict[str, set[str]]]) -> None:
    plots = json.loads(run("dvc", "plots", "show", "--json", cwd=by_dvc[0]).stdout)["data"]
    assert set(plots) == {f"results/toy/curves/{row}/seed0.csv" for row in ("train/teacher", "distil/at/student")}


def test_dvc_plots_the_curves_of_runs_as_they_grow(by_dvc: tuple[Path, dict[str, set[str]]], tmp_path: Path) -> None:
    project = copy_finished(by_dvc[0], tmp_path / "project")
    command = ("dvc", "plots", "show", "runs/toy/train", "-x", "epoch", "-y", "val_top1", "--json")
    (plot,) = json.loads(run(*command, cwd=project).stdout)["data"]
    assert plot.startswith("runs/toy/train/teacher/seed0/")


@pytest.mark.slow
def test_snakemakes_report_has_every_result_with_its_caption(by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    run("snakemake", "--report", str(tmp_path / "report.zip"), cwd=project)
    with zipfile.ZipFile(tmp_path / "report.zip") as report:
        content = report.read("report/report.html").decode()
    for caption in ("The whole of the results in one page", "One table of the results page", "A figure of the results"):
        assert caption in content
    for category in ("Attention maps", "Curves", "Figures", "Metrics", "Results page", "Tables"):
        assert f'"{category}"' in content
    without_tags = re.sub(r"<[^>]*>", "", content.replace("\\n", " "))
    assert "teacher (train/teacher/seed0)" in without_tags


def test_attention_maps_are_those_of_the_named_models(by_snakemake: Path) -> None:
    """Scratch is the teacher itself in the toy experiment: no distance to itself, one to the student."""
    folder = by_snakemake / "results/toy/attention-maps"
    distances = json.loads((folder / "distances.json").read_text())
    assert distances["distance"]["scratch"] == [0, 0, 0, 0]
    assert all(0 < distance < 2 for distance in distances["distance"]["distilled"])
    assert distances["n"] == 600
    assert [image["position"] for image in distances["images"]] == [0, 7]
    model = by_snakemake / "models/toy/distil/at/student/seed0.safetensors"
    assert distances["models"]["distilled"]["sha256"] == sha256(model)
    assert (folder / "maps.png").read_bytes() != (folder / "maps-dark.png").read_bytes()


def test_attention_maps_are_of_the_images_asked_for_with_plain_pytorchs_distances(
    by_snakemake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Squared L2 distances of maps of L2 norm 1, here of the second group."""
    drawn: list[Example] = []
    module = "moonshine.stages.attention_maps"
    monkeypatch.setattr(f"{module}.attention_figure", lambda name, examples, titles: drawn.extend(examples) or {})
    monkeypatch.setattr(f"{module}.make_deterministic", lambda threads: None)
    monkeypatch.chdir(copy_finished(by_snakemake, tmp_path / "project"))
    params, positions = toy_params(), [401, 7]  # of another batch, and not in order
    params["attention_maps"]["images"] = positions
    attention_maps(Params.model_validate(params))
    data = SmallImages(Path("data/digits"), "val", CPU)
    images, labels = next(data.evaluation_batches(600))

    def maps(model: str) -> torch.Tensor:
        network, _ = load_model(Path(f"models/toy/{model}.safetensors"))
        features = []
        network.get_submodule("layer2").register_forward_hook(lambda module, inputs, output: features.append(output))
        with torch.inference_mode():
            network(images)
        return normalize(features[0].square().sum(1).flatten(1))

    expected = (maps("distil/at/student/seed0") - maps("train/teacher/seed0")).square().sum(1)
    found = json.loads(Path("results/toy/attention-maps/distances.json").read_text())
    assert found["distance"]["distilled"][1] == pytest.approx(expected.mean().item(), abs=1e-5)
    for position, example, noted in zip(positions, drawn, found["images"], strict=True):
        torch.testing.assert_close(torch.from_numpy(example.image), data.images[position] / 255)
        assert (
            (noted["position"], noted["class"]) == (position, example.label) == (position, str(int(labels[position])))
        )
        assert noted["distance"] == example.distances
        assert example.distances["distilled"][1] == pytest.approx(expected[position].item(), abs=1e-5)


def test_attention_maps_of_an_image_that_is_not_there_are_refused(by_snakemake: Path, tmp_path: Path) -> None:
    copy_finished(by_snakemake, tmp_path / "project")
    params = toy_params()
    params["attention_maps"]["images"] = [600]
    write_params(tmp_path / "project", params)
    result = run_moonshine("attention-maps", cwd=tmp_path / "project", check=False)
    assert result.returncode == 2
    assert "attention_maps.images: 600, but the last validation image is 599" in result.stderr


@pytest.mark.slow
def test_a_mistake_in_params_is_one_line_under_either_engine(tmp_path: Path) -> None:
    params = toy_params()
    params["recipe"]["epohcs"] = params["recipe"].pop("epochs")
    project = copy_project(tmp_path / "project", params)
    line = 'params.yaml: recipe.epohcs: unknown key (did you mean "epochs"?)'
    for command, code in ((("dvc", "repro"), 255), (("snakemake", "--cores", "1"), 1)):
        result = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True)
        assert result.returncode == code
        assert line in result.stdout + result.stderr
    assert not (project / "data").exists()


def test_status_knows_models_that_were_made_with_other_params(by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    params = toy_params()
    params["methods"]["at"]["beta"] = 20.0
    write_params(project, params)
    shown = run_moonshine("status", cwd=project).stdout
    assert "toy: of 2 networks 1 done, 1 outdated; 2 of 2 rows measured" in shown
    params["recipe"]["epochs"] = 30
    write_params(project, params)
    states = [line.split()[:4] for line in run_moonshine("status", cwd=project).stdout.splitlines() if " 0 " in line]
    assert states == [["train/teacher", "0", "outdated", "2/30"], ["distil/at/student", "0", "outdated", "2/30"]]


def test_the_page_is_written_from_params_not_from_what_lies_about(by_snakemake: Path, tmp_path: Path) -> None:
    """A row that was dropped from params must not stay in a table."""
    copy_finished(by_snakemake, tmp_path / "project")
    text = (tmp_path / "project/params.yaml").read_text()
    text = text.replace("  - distil/at/student\n", "").replace("  distil/at/student: Student\n", "")
    text = re.sub(r"distil:\n  networks:\n  - student\n", "distil:\n  networks: []\n", text)
    text = text.replace("distilled: distil/at/student", "distilled: train/teacher")
    (tmp_path / "project/params.yaml").write_text(text)
    run_moonshine("attention-maps", cwd=tmp_path / "project")
    run_moonshine("report", cwd=tmp_path / "project")
    page = (tmp_path / "project/results/toy/README.md").read_text()
    assert "Teacher" in page
    assert "Student" not in page
