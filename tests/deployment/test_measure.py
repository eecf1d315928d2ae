"""`moonshine measure` as a user calls it, on networks of the toy experiment that are not trained."""

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.separate_project import environment, write_params
from moonshine import cli
from moonshine.deployment.backends import interleaved, torch_run
from moonshine.models.model_file import model_bytes
from moonshine.models.networks import initialise
from moonshine.params import read_params
from moonshine.project.records import ModelDescription
from moonshine.report.latency import LatencyFile, latencies, read_latency_files
from moonshine.runtime import cpus, signals
from tests.support.project import run_moonshine, toy_params


class Convolution(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.layer = nn.Conv2d(1, channels, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images)


QUICKLY = ("--rounds", "2", "--runs", "2", "--warm-up", "1")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The teacher, its student, and a network of the student's architecture under another name."""
    params = toy_params()
    params["networks"]["twin"] = params["networks"]["student"]
    params["distil"]["networks"] = ["student", "twin"]
    write_params(tmp_path, params)
    monkeypatch.setattr(signals, "install_handlers", lambda: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed_table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_all_networks_are_measured_untrained_and_written_for_the_page(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["measure", *QUICKLY, "--machine", "here", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    lines = printed_table(captured.out)
    assert [line[:3] for line in lines] == [[name, "float32", "1"] for name in ("teacher", "student", "twin")]
    assert lines[0][7] == "1.00", "the teacher is what the others are compared with"
    assert lines[1][3:] == lines[2][3:], "one measurement per architecture"
    for line in lines:
        median, low, high, per_second = map(float, line[3:7])
        assert 0 < low <= median <= high
        assert per_second == pytest.approx(1000 / median, rel=0.01)
        assert re.fullmatch(r"\d.*[kM]?B", line[8]), "peak memory"
    path = project / "results/toy/latency/here.json"
    file = LatencyFile.model_validate_json(path.read_bytes())
    assert (file.hardware.cpus, file.hardware.gpu) == (cpus.usable_cpus(), None)
    assert file.versions.keys() == {"moonshine", "onnxruntime"}
    assert file.networks["student"].weights is None
    assert not re.search(r"\d{4}-\d\d-\d\d", path.read_text()), "results in git have no dates"
    assert os.uname().nodename not in path.read_text().split('"')
    params = read_params(Path("params.yaml"))
    found = latencies(params, read_latency_files(params), params.rows[0])
    assert found["here"].speedup == 1.0


def test_named_rows_are_compared_with_the_teacher_and_not_written(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["measure", "distil/at/student", *QUICKLY, "--batch", "3", "--backend", "eager"]) == 0
    lines = printed_table(capsys.readouterr().out)
    assert [line[0] for line in lines] == ["teacher", "student"]
    assert float(lines[0][6]) == pytest.approx(3000 / float(lines[0][3]), rel=0.01), "images per second of a batch of 3"
    assert not (project / "results").exists()


def test_a_trained_model_is_measured_if_there_is_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = read_params(Path("params.yaml"))
    description: ModelDescription = {
        "name": "train/teacher/seed0",
        "architecture": params.architecture("teacher"),
        "input": [1, params.dataset.size, params.dataset.size],
        "preprocessing": {"resize": [params.dataset.size] * 2},
        "normalisation": {"mean": [0.0], "std": [1.0]},
        "classes": [str(digit) for digit in range(10)],
    }
    path = project / "models/toy/train/teacher/seed0.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(model_bytes(initialise(params.architecture("teacher"), 0), description))
    assert cli.main(["measure", "train/teacher", *QUICKLY, "--backend", "eager", "--machine", "here"]) == 0
    file = LatencyFile.model_validate_json((project / "results/toy/latency/here.json").read_bytes())
    assert file.networks["teacher"].weights == "train/teacher/seed0"
    (project / "params.yaml").unlink()
    assert cli.main(["measure", "--model", str(path), *QUICKLY, "--backend", "eager"]) == 0
    assert [line[0] for line in printed_table(capsys.readouterr().out)][-1] == str(path), "without params.yaml"


@pytest.mark.slow
def test_int8_is_measured_next_to_float32(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moonshine.deployment.measure.instruction_sets", lambda: ["avx2"])
    assert cli.main(["measure", "train/teacher", *QUICKLY, "--int8", "--machine", "here"]) == 0
    captured = capsys.readouterr()
    assert [line[:2] for line in printed_table(captured.out)] == [["teacher", "float32"], ["teacher", "int8"]]
    assert re.search(r"^warning: .* has none of avx512_vnni, avx_vnni, asimddp: int8 may be slower", captured.err, re.M)
    params = read_params(Path("params.yaml"))
    assert latencies(params, read_latency_files(params), params.rows[0])["here"].int8


@pytest.mark.slow
def test_networks_are_measured_compiled(project: Path) -> None:
    run_moonshine("measure", "train/teacher", *QUICKLY, "--backend", "compiled", "--machine", "here", cwd=project)
    file = json.loads((project / "results/toy/latency/here.json").read_text())
    assert file["protocol"]["backend"] == "compiled"


def test_each_of_many_networks_of_a_class_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch gives up on a forward method after 8 networks, and would then run the others as eager."""
    compiled: list[torch.fx.GraphModule] = []
    with_backend = partial(torch.compile, backend=lambda graph, _: compiled.append(graph) or graph.forward)
    monkeypatch.setattr(torch, "compile", with_backend)
    image = np.zeros((1, 1, 12, 12), np.float32)
    for channels in range(1, 11):
        torch_run(Convolution(channels), image, torch.device("cpu"), compiled=True)()
    assert len(compiled) == 10


def test_networks_take_turns() -> None:
    """One untimed run and then the timed ones, again and again, so that whatever else slows the machine slows all."""
    order: list[str] = []
    turns: list[int] = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    times = interleaved(runs, warm_up=1, rounds=2, runs_per_round=2, after_each_turn=turns.append)
    assert "".join(order) == "ab" + "aaabbb" * 2
    assert sum(turns) == len(order)
    assert {name: len(each) for name, each in times.items()} == {"a": 4, "b": 4}


@pytest.mark.slow
def test_a_stopped_measurement_writes_nothing(project: Path) -> None:
    command = [sys.executable, "-m", "moonshine", "measure", "--machine", "here", "--backend", "eager"]
    process = subprocess.Popen(
        [*command, "--warm-up", "1000000"], cwd=project, env=environment(), stderr=subprocess.PIPE, text=True
    )
    status = Path(f"/proc/{process.pid}/status")
    while not int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16) >> (signal.SIGTERM - 1) & 1:  # type: ignore[index]
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[1].splitlines()[-1] == (
        "error: stopped by SIGTERM: nothing is written, run the same command again"
    )
    assert process.returncode == 128 + signal.SIGTERM
    assert not (project / "results").exists()


REFUSED = {
    "an unknown row": (["train/techer"], 2, 'unknown row "train/techer" (did you mean "train/teacher"?)'),
    "a model as a row": (["a/b.safetensors"], 2, "a/b.safetensors: a model file, not a row; name it with --model"),
    "no threads": (["--threads", "0"], 2, "--threads: must be at least 1, found 0"),
    "too many threads": (["--threads", "4096"], 2, "--threads 4096: this process may use"),
    "a GPU for onnxruntime": (["--device", "cuda"], 2, "--device cuda needs --backend eager or compiled"),
    "int8 in PyTorch": (["--int8", "--backend", "eager"], 2, "--int8 needs --backend onnxruntime, not eager"),
    "a path as a name": (["--machine", "../x"], 2, '--machine: "../x" must be lower-case letters'),
    "a folder": (["--model", "."], 2, ".: is a folder; name a model file"),
    "no such model": (["--model", "x.safetensors"], 3, "x.safetensors"),
}


@pytest.mark.parametrize(("options", "code", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("project")
def test_what_cannot_be_measured_is_one_line(
    options: list[str], code: int, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["measure", *options]) == code
    error = capsys.readouterr().err.strip()
    assert reason in error
    assert "\n" not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.usefixtures("project")
def test_a_gpu_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["measure", "--device", "cuda", "--backend", "eager"]) == 5
    assert capsys.readouterr().err.startswith("error: --device cuda: ")
