"""Odd places and poor environments: the experiment has the same bytes, or the message says what is missing."""

import json
import os
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.separate_project import environment
from moonshine.runs.provenance import processor_of
from moonshine.runtime.files import sha256
from moonshine.training.objective import CrossEntropy
from moonshine.training.state import TrainingState
from tests.faults.checkpoints import edit_newest, stop_at
from tests.faults.experiment import STAGES, TRAIN, Experiment, Injections, artefact_hashes, tiny_params
from tests.faults.forked import command
from tests.support.project import copy_project, run, run_moonshine

ODD = "(scratch) ö ön/ü 'x\" $HOME;&"
POOR = {
    "the C locale": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "no home": {"HOME": ""},
    "another hash seed": {"PYTHONHASHSEED": "123"},
    "more threads than asked for": {"OMP_NUM_THREADS": "8", "MKL_NUM_THREADS": "8"},
}


def test_an_odd_path(experiment: Experiment, tmp_path: Path, injected: Injections) -> None:
    with injected("odd paths, poor environments"):
        folder = experiment.copy(tmp_path / ODD / "run", "runs", "models", "results", "logs", "data")
        for arguments in STAGES:
            result = command(folder, *arguments)
            assert result.code == 0, result.output
        assert artefact_hashes(folder) == experiment.golden


def test_a_strict_umask(experiment: Experiment, untrained: Path, injected: Injections) -> None:
    with injected("odd paths, poor environments"):
        assert command(untrained, *TRAIN, prepare=set_umask).code == 0
        assert experiment.unharmed(untrained)
        (model,) = untrained.glob("models/**/*.safetensors")
        assert stat.S_IMODE(model.stat().st_mode) == 0o600


def set_umask() -> None:
    os.umask(0o077)


@pytest.mark.parametrize("device", ["a CPU", "a GPU"])
def test_too_little_memory_is_said_in_one_line(device: str, untrained: Path) -> None:
    result = command(untrained, *TRAIN, prepare=ask_for_400_terabytes if device == "a CPU" else run_out_of_gpu_memory)
    assert result.code == 5, result.output
    lacks = {
        "a CPU": "out of memory; lower recipe.batch_size, or run where there is more",
        "a GPU": "out of GPU memory; lower machine.trainings_per_gpu if it is set, else recipe.batch_size, or run "
        "where there is more",
    }
    assert result.output.endswith(f"error: {lacks[device]}\n")
    assert "Traceback" not in result.output


def ask_for_400_terabytes() -> None:
    CrossEntropy.__call__ = lambda *arguments: torch.empty(10**14)  # type: ignore[method-assign]


def run_out_of_gpu_memory() -> None:
    def call(*arguments: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    CrossEntropy.__call__ = call  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "CUDA error: uncorrectable ECC error\nCUDA kernel errors ...",
            "the GPU failed (CUDA error: uncorrectable",
        ),
        ("cuDNN error: CUDNN_STATUS", "the GPU failed (cuDNN error: CUDNN_STATUS); run the same command again"),
        ("backend='inductor' raised:\nX: CUDA error: assert", "the GPU failed (X: CUDA error: assert); run the same"),
        (
            "CUDA error: no kernel image is available for execution",
            f"this torch ({torch.__version__}) does not",
        ),
    ],
)
def test_a_gpu_that_fails_is_said_in_one_line(message: str, told: str, untrained: Path) -> None:
    result = command(untrained, *TRAIN, prepare=partial(fail, "CrossEntropy.__call__", message))
    assert result.code == 5, result.output
    assert f"error: {told}" in result.output
    assert "Traceback" not in result.output


def test_a_gpu_that_fails_on_resuming_does_not_blame_the_checkpoint(experiment: Experiment, untrained: Path) -> None:
    stop_at(untrained, 3)
    result = command(untrained, *TRAIN, prepare=partial(fail, "TrainingState.load_checkpoint", "CUDA error: ..."))
    assert result.code == 5, result.output
    assert "the GPU failed (CUDA error: ...)" in result.output
    assert "delete" not in result.output
    assert command(untrained, *TRAIN).code == 0
    assert experiment.unharmed(untrained)


def fail(name: str, message: str) -> None:
    """From now on this method raises what torch raises if a GPU fails."""
    owner, _, method = name.partition(".")

    def call(*arguments: object) -> Any:
        raise torch.AcceleratorError(message) if message.startswith("CUDA") else RuntimeError(message)

    setattr({"CrossEntropy": CrossEntropy, "TrainingState": TrainingState}[owner], method, call)


def test_going_on_on_another_processor_is_told_and_recorded(experiment: Experiment, untrained: Path) -> None:
    stop_at(untrained, 3)
    result = command(untrained, *TRAIN, prepare=be_another_processor)
    assert result.code == 0, result.output
    (folder,) = untrained.glob("runs/toy/train/teacher/seed0/*/")
    here = processor_of(torch.device("cpu"))
    assert f"warning: {folder.relative_to(untrained)}: trained on {here} so far, from now on on a Z80" in result.output
    record, untouched = (
        json.loads((project / "models/toy/records/train/teacher/seed0.json").read_text())
        for project in (untrained, experiment.folder)
    )
    assert record["trained_on"] == [here, "a Z80"]
    assert untouched["trained_on"] == [here]


def test_who_took_the_steps_of_an_older_checkpoint_is_unknown(untrained: Path) -> None:
    stop_at(untrained, 3)
    edit_newest(untrained, lambda state: state.pop("trained_on"))
    result = command(untrained, *TRAIN)
    assert result.code == 0, result.output
    assert "trained on an unknown processor so far" in result.output
    record = json.loads((untrained / "models/toy/records/train/teacher/seed0.json").read_text())
    assert record["trained_on"] == ["an unknown processor", processor_of(torch.device("cpu"))]


def be_another_processor() -> None:
    import moonshine.training.session

    moonshine.training.session.processor_of = lambda device: "a Z80"


def test_read_only_data(experiment: Experiment, untrained: Path, injected: Injections) -> None:
    with injected("odd paths, poor environments"):
        folder = untrained / "data" / "digits"
        before = {path: (sha256(path), path.stat().st_mtime_ns) for path in folder.iterdir()}
        for path in [*folder.iterdir(), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        user = 12345
        for path in [untrained, *untrained.rglob("*")]:
            if "data" not in path.parts:
                os.chown(path, user, user) if os.getuid() == 0 else None
        assert command(untrained, *TRAIN).code == 0
        folder.chmod(0o755)
        assert {path: (sha256(path), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
        assert experiment.unharmed(untrained)


@pytest.mark.slow
@pytest.mark.parametrize("name", POOR)
def test_a_poor_environment(name: str, experiment: Experiment, untrained: Path, injected: Injections) -> None:
    """In processes of their own, for these variables are read when Python and its libraries start."""
    with injected("odd paths, poor environments"):
        run_moonshine(*TRAIN, cwd=untrained, **POOR[name])
        assert experiment.unharmed(untrained)


@pytest.mark.slow
def test_no_home_at_all(experiment: Experiment, untrained: Path, injected: Injections) -> None:
    with injected("odd paths, poor environments"):
        variables = {key: value for key, value in environment().items() if key not in ("HOME", "USER", "LOGNAME")}
        command = [sys.executable, "-m", "moonshine", *TRAIN]
        subprocess.run(command, cwd=untrained, env=variables, check=True, capture_output=True)
        assert experiment.unharmed(untrained)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [("snakemake", "--cores", "1"), ("dvc", "repro")], ids=["snakemake", "dvc"])
def test_an_engine_on_an_odd_path_in_the_c_locale(
    engine: tuple[str, ...], experiment: Experiment, tmp_path: Path, injected: Injections
) -> None:
    with injected("odd paths, poor environments"):
        project = copy_project(tmp_path / "(scratch) ö ön" / "ü x", tiny_params())
        run(*engine, cwd=project, LANG="C", LC_ALL="C")
        assert experiment.complete(project)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_a_user_who_is_not_root(experiment: Experiment, untrained: Path, injected: Injections) -> None:
    for parent in untrained.parents:
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    for path in [untrained, *untrained.rglob("*")]:
        os.chown(path, 12345, 12345)
    with injected("odd paths, poor environments"):
        assert command(untrained, *TRAIN, prepare=become_user).code == 0
        assert experiment.unharmed(untrained)
        assert {path.stat().st_uid for path in untrained.glob("models/**/*")} == {12345}


def become_user() -> None:
    os.setgid(12345)
    os.setuid(12345)


def test_a_gpu_that_is_not_there(untrained: Path, experiment: Experiment, tmp_path: Path, injected: Injections) -> None:
    params = tiny_params()
    params["machine"]["device"] = "cuda"
    folder = Experiment(untrained, {}).copy(tmp_path / "run", params=params)
    with injected("device: cuda without a GPU"):
        result = command(folder, *TRAIN, prepare=hide_gpus)
        assert result.code == 5
        assert "machine.device: cuda, but" in result.output
        assert "Traceback" not in result.output
        assert artefact_hashes(folder) == {}


def hide_gpus() -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def test_what_ran_where_is_recorded(experiment: Experiment) -> None:
    record = json.loads((experiment.folder / "models/toy/records/train/teacher/seed0.json").read_text())
    assert record["machine"].keys() == {"device", "processor", "accelerator", "python"}
    assert record["machine"]["device"] == "cpu"
    assert record["identity"]["torch"].startswith("2.")
    assert record["identity"]["recipe"]["threads"] == 1
    assert "image" in record
