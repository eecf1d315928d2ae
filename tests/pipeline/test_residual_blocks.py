"""A student with another convolution in each block, by the command line: distilled, evaluated and exported."""

import csv
import json
from pathlib import Path

import pytest

from benchmarks.separate_project import write_params
from moonshine.costs.counts import network_cost
from moonshine.models.model_file import load_model, read_description
from moonshine.params import read_params
from tests.support.project import run_moonshine, toy_params

CONVS = ["S", "B(2)", "G(2)", "BG(2,M)", "BG(2,2)", "S-2x2", "B(4)", "G(N/2)"]
MODEL = "models/toy/distil/at/student/seed0.safetensors"


@pytest.mark.slow
def test_a_student_with_a_list_learns_attention_and_is_used(tmp_path: Path) -> None:
    params = toy_params()
    student = {**params["networks"]["teacher"], "convs": CONVS, "init": "teacher", "recipe": {"epochs": 4}}
    params["networks"]["student"] = student
    write_params(tmp_path, params)
    for command in (("check",), ("prepare",), ("train", "teacher", "--seed", "0")):
        run_moonshine(*command, cwd=tmp_path)
    said = run_moonshine("distil", "at/student", "--seed", "0", cwd=tmp_path).stderr
    assert "begins with 88 of the 122 tensors of train/teacher/seed0" in said
    with (tmp_path / "results/toy/curves/distil/at/student/seed0.csv").open() as file:
        epochs = list(csv.DictReader(file))
    for layer in (2, 3, 4):
        first, last = (float(epochs[number][f"attention_{layer}"]) for number in (0, -1))
        assert last < 0.8 * first
    run_moonshine("evaluate", "distil/at/student", cwd=tmp_path)
    run_moonshine("export", MODEL, cwd=tmp_path)  # which compares the file with PyTorch
    assert (tmp_path / "exports/toy/distil/at/student/seed0.onnx").is_file()

    network, _ = load_model(tmp_path / MODEL)
    record = json.loads((tmp_path / "models/toy/records/distil/at/student/seed0.json").read_text())
    metrics = json.loads((tmp_path / "results/toy/metrics/distil/at/student.json").read_text())
    cost = network_cost(read_params(tmp_path / "params.yaml").architecture("student"), 12, 12)
    assert read_description(tmp_path / MODEL)["architecture"]["convs"] == CONVS
    assert record["identity"]["network"]["convs"] == CONVS
    assert sum(parameter.numel() for parameter in network.parameters()) == metrics["learnable"] == cost.trainable
    assert metrics["macs"] == cost.macs
