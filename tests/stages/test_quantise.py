"""`moonshine quantise` and what it exports, through the command line, on digits models trained for one epoch."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from benchmarks.separate_project import write_params
from moonshine.data.loading import SmallImages
from moonshine.export.session import OnnxNetwork
from moonshine.models.model_file import load_model
from moonshine.runtime.files import sha256
from tests.support.project import files_below, run_moonshine, toy_params

ROW = "train/student"
MODEL = "models/toy/train/student/seed0.safetensors"
INT8 = "models/toy/int8/train/student/seed0.onnx"
METRICS = "results/toy/metrics/int8/train/student.json"
SETTINGS = {"images": 100, "per_tensor": True, "reduce_range": False}


def params_with(**settings: Any) -> dict[str, Any]:
    params = toy_params()
    params["train"] = ["teacher", "student"]
    params["recipe"].update(epochs=1, lr_steps=[])
    params["quantise"] = {ROW: {**SETTINGS, **settings}}
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    write_params(folder, params_with())
    run_moonshine("prepare", cwd=folder)
    run_moonshine("train", "student", "--seed", "0", cwd=folder)
    run_moonshine("quantise", ROW, cwd=folder)
    return folder


def test_errors_in_int8_are_those_of_the_file_in_onnxruntime(project: Path) -> None:
    data = SmallImages(project / "data/digits", "val", torch.device("cpu"))
    images, labels = next(data.evaluation_batches(600))
    logits = OnnxNetwork(str(project / INT8))(images)
    right = logits.topk(5).indices == labels[:, None]  # logits in int8 may be equal
    metrics = json.loads((project / METRICS).read_text())
    assert metrics["n"] == 600
    assert metrics["top1"]["mean"] == pytest.approx(100 * (1 - right[:, 0].double().mean().item()), abs=1e-5)
    assert metrics["top5"]["mean"] == pytest.approx(100 * (1 - right.sum(1).double().mean().item()), abs=1e-5)
    assert metrics["loss"]["mean"] == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-4)
    seed = metrics["seeds"]["0"]
    assert seed["int8_bytes"] == (project / INT8).stat().st_size
    assert (seed["int8_sha256"], seed["model_sha256"]) == (sha256(project / INT8), sha256(project / MODEL))
    assert metrics["settings"] == SETTINGS
    assert metrics["per_tensor"]["seeds"]["0"]["int8_sha256"] != seed["int8_sha256"]


@pytest.mark.slow
def test_the_same_again_has_the_same_bytes(project: Path) -> None:
    before = files_below(project / "models/toy/int8") | files_below(project / "results")
    run_moonshine("quantise", ROW, cwd=project, PYTHONHASHSEED="7")
    assert files_below(project / "models/toy/int8") | files_below(project / "results") == before


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ("train/studnet", {}, 'unknown row "train/studnet" (did you mean "train/student"?)'),
        (
            "train/teacher",
            {},
            "train/teacher: not among the rows that are quantised; add quantise.train/teacher to params.yaml",
        ),
        (ROW, {"images": 0}, "params.yaml: quantise.train/student.images: "),
        (ROW, {"images": 5000}, "quantise.train/student.images: 5,000, but data/digits has 1,197 training images"),
    ],
)
def test_what_cannot_be_quantised_is_refused_in_one_line(
    row: str, settings: dict[str, Any], message: str, project: Path, tmp_path: Path
) -> None:
    shutil.copytree(project / "data", tmp_path / "data")
    write_params(tmp_path, params_with(**settings))
    result = run_moonshine("quantise", row, cwd=tmp_path, check=False)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith(f"error: {message}")
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_network_that_onnxruntime_cannot_quantise_ends_with_exit_code_8_and_writes_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moonshine.errors import CheckpointError
    from moonshine.params import read_params
    from moonshine.project.rows import Row
    from moonshine.stages import quantise

    def refuse(*arguments: Any, **options: Any) -> bytes:
        raise CheckpointError("onnxruntime cannot quantise these layers: LSTM weight")

    monkeypatch.chdir(project)
    monkeypatch.setattr(quantise, "quantise", refuse)
    before = files_below(project / "models") | files_below(project / "results")
    with pytest.raises(CheckpointError, match=r"^models/toy/train/student/seed0.safetensors: onnxruntime cannot ") as e:
        quantise.quantise_row(read_params(Path("params.yaml")), Row.parse(ROW))
    assert e.value.exit_code == 8
    assert files_below(project / "models") | files_below(project / "results") == before


def test_metrics_of_other_settings_are_outdated(project: Path, tmp_path: Path) -> None:
    from moonshine.checks.made_for import find_mismatches
    from moonshine.params import read_params

    write_params(tmp_path, params_with(images=64))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        assert list(find_mismatches(read_params(Path("params.yaml")))) == []
        (mismatch,) = find_mismatches(read_params(tmp_path / "params.yaml"))
    assert str(mismatch).startswith(f"{METRICS}: outdated (quantise.images: ")
    assert mismatch.command == f"moonshine quantise {ROW}"


@pytest.mark.parametrize("format_", [pytest.param("onnx", marks=pytest.mark.slow), "onnx-int8"])
def test_every_format_predicts_as_the_model_itself(format_: str, project: Path, tmp_path: Path) -> None:
    """From the exported file alone: class names and preprocessing are in its metadata."""
    run_moonshine("export", MODEL, "--format", format_, "--output", str(tmp_path / "it.onnx"), cwd=project)
    data = SmallImages(project / "data/digits", "val", torch.device("cpu"))
    for index in range(3):
        Image.fromarray(data.images[index, 0].numpy()).save(tmp_path / f"{index}.png")
    images, _ = next(data.evaluation_batches(3))
    with torch.inference_mode():
        expected = load_model(project / MODEL)[0](images).softmax(1)
    said = run_moonshine("predict", "it.onnx", ".", "--top", "10", "--json", cwd=tmp_path).stdout
    for line, probabilities in zip(map(json.loads, said.splitlines()), expected):
        found = {each["class"]: each["probability"] for each in line["classes"]}
        assert sorted(found) == data.manifest["classes"]
        tolerance = 1e-5 if format_ == "onnx" else 0.1
        for label, probability in enumerate(probabilities.tolist()):
            assert found[data.manifest["classes"][label]] == pytest.approx(probability, abs=tolerance)


@pytest.mark.slow
def test_int8_is_calibrated_on_images_if_they_are_named(project: Path, tmp_path: Path) -> None:
    data = SmallImages(project / "data/digits", "val", torch.device("cpu"))
    Image.fromarray(data.images[0, 0].numpy()).save(tmp_path / "0.png")
    shutil.copy(project / MODEL, tmp_path / "it.safetensors")
    result = run_moonshine("export", "it.safetensors", "--format", "onnx-int8", "--images", "0.png", cwd=tmp_path)
    assert result.stderr.startswith("exports/it-int8.onnx: ")
    assert "the same class for 1 of 1 images" in result.stderr


@pytest.mark.parametrize(
    ("content", "reason"), [(b"<html>", "not a readable ONNX file ("), (None, "cannot be read (No such file")]
)
def test_predict_refuses_what_is_no_onnx_file(content: bytes | None, reason: str, tmp_path: Path) -> None:
    if content:
        (tmp_path / "it.onnx").write_bytes(content)
    result = run_moonshine("predict", "it.onnx", "0.png", cwd=tmp_path, check=False)
    assert (result.returncode, result.stderr.count("\n")) == (3, 1)
    assert result.stderr.startswith(f"error: it.onnx: {reason}")
