"""A method with every loss, through the commands: resumed, together and in several processes, it has the same bytes."""

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.separate_project import ROOT, write_params
from moonshine.errors import ParamsError
from moonshine.params import Params, read_params
from moonshine.runs.identity import identity_in_params
from moonshine.runtime.files import sha256
from tests.support.all_losses import ALL_LOSSES, one_step
from tests.support.project import run, run_moonshine, start_until_paused, toy_params
from tests.support.small_runs import DISTIL

MODEL = "models/toy/distil/all/student/seed0.safetensors"
NEW = ("cross_entropy", "standardise_logits", "dist", "dkd", "ttm")


def with_all_losses(**machine: Any) -> dict[str, Any]:
    params = toy_params()
    params["methods"]["all"] = ALL_LOSSES
    params["distil"]["methods"] = ["all", "at"]
    params["recipe"]["batch_size"] = 400
    params["machine"] = {"device": "cpu", **machine}
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a teacher."""
    folder = tmp_path_factory.mktemp("methods")
    write_params(folder, with_all_losses())
    run_moonshine("prepare", cwd=folder)
    run_moonshine("train", "teacher", "--seed", "0", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def distilled(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(project, tmp_path_factory.mktemp("distilled") / "project")
    run_moonshine("distil", "all/student", "--seed", "0", cwd=folder)
    return folder


def test_its_curve_has_every_loss_by_name(distilled: Path) -> None:
    with (distilled / "results/toy/curves/distil/all/student/seed0.csv").open() as file:
        epochs = list(csv.DictReader(file))
    losses = ["cross_entropy", "kd", "dist_inter", "dist_intra", "dkd_target", "dkd_other", "ttm"]
    losses += [f"attention_{group}" for group in (1, 2, 3, 4)]
    assert {*losses, "loss"} < set(epochs[0])
    assert all(0 < float(epoch[loss]) < 1000 for epoch in epochs for loss in losses)


def test_its_record_has_every_key(distilled: Path) -> None:
    record = json.loads((distilled / "models/toy/records/distil/all/student/seed0.json").read_text())
    assert ALL_LOSSES.items() <= record["identity"]["method"].items()


def test_together_it_has_the_bytes_that_it_has_alone(project: Path, distilled: Path, tmp_path: Path) -> None:
    together = shutil.copytree(project, tmp_path / "project")
    run_moonshine("distil", "--together", "--seed", "0", cwd=together)
    run_moonshine("distil", "all/student", "--seed", "0", cwd=together)
    assert sha256(together / MODEL) == sha256(distilled / MODEL)


@pytest.mark.slow
def test_killed_it_resumes_to_the_same_bytes(project: Path, distilled: Path, tmp_path: Path) -> None:
    killed = shutil.copytree(project, tmp_path / "project")
    write_params(killed, with_all_losses(checkpoint_steps=1))
    command = (sys.executable, "-m", "moonshine", "distil", "all/student", "--seed", "0")
    process = start_until_paused(*command, cwd=killed, phase="end of epoch")
    process.kill()
    process.wait()
    result = run_moonshine("distil", "all/student", "--seed", "0", cwd=killed)
    assert "resuming from epoch" in result.stderr
    assert sha256(killed / MODEL) == sha256(distilled / MODEL)


@pytest.mark.slow
def test_two_processes_have_the_losses_and_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    """Of shares of 4 and 3 images, although DIST compares the columns of a batch."""
    script = str(ROOT / "tests/support/all_losses.py")
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run(*launch, script, str(tmp_path), cwd=ROOT, PYTHONPATH=str(ROOT))
    alone, first, second = one_step(), *(torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first["losses"] == second["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    for name, gradient in alone["gradients"].items():
        assert torch.equal(first["gradients"][name], second["gradients"][name])
        torch.testing.assert_close(first["gradients"][name], gradient, rtol=1e-3, atol=1e-5)
    assert sum(float(gradient.abs().sum()) for gradient in alone["gradients"].values()) > 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cross_entropy", 0.7),
        ("standardise_logits", False),
        ("dist", {**ALL_LOSSES["dist"], "gamma": 1.0}),
        ("dkd", {**ALL_LOSSES["dkd"], "warmup_epochs": None}),
        ("ttm", {**ALL_LOSSES["ttm"], "weighted": None}),
    ],
)
def test_each_key_is_in_the_identity_of_a_run(key: str, value: Any) -> None:
    identities = []
    for settings in (ALL_LOSSES, {**ALL_LOSSES, key: value}):
        params = Params.model_validate({**toy_params(), "methods": {"at": settings}})
        identities.append(identity_in_params(params, DISTIL, 10, 1))
    before, after = identities
    assert before["method"] | {key: after["method"][key]} == after["method"] != before["method"]
    assert {**before, "method": None} == {**after, "method": None}


def test_keys_that_are_left_out_are_in_no_identity() -> None:
    """So the runs from before them keep their folders."""
    params = Params.model_validate(toy_params())
    method = identity_in_params(params, DISTIL, 10, 1)["method"]
    assert not set(NEW) & set(method)
    nulls = {**toy_params(), "methods": {"at": {**toy_params()["methods"]["at"], **dict.fromkeys(NEW)}}}
    assert identity_in_params(Params.model_validate(nulls), DISTIL, 10, 1)["method"] == method


def test_standardised_logits_of_two_classes_are_refused(tmp_path: Path) -> None:
    params = {**toy_params(), "methods": {"at": {**ALL_LOSSES}}}
    params["dataset"] = {
        "name": "own", "source": "folder", "classes": 2, "channels": 3, "size": 12, "evaluation": {"resize": 14},
        "shared": [], "licensed": ["own"],
    }  # fmt: skip
    params["recipe"]["augmentation"] = {"flip": True, "crop_scale": [0.5, 1.0]}
    write_params(tmp_path, params)
    with pytest.raises(ParamsError, match=r"methods\.at\.standardise_logits: standardised logits of 2 classes do not"):
        read_params(tmp_path / "params.yaml")


def test_a_teacher_of_other_classes_is_refused_by_losses_of_logits_alone() -> None:
    params = Params.model_validate(
        {**toy_params(), "methods": {"at": ALL_LOSSES, "plain": toy_params()["methods"]["at"]}}
    )
    assert params.methods["at"].uses_logits
    assert not params.methods["plain"].uses_logits
    for key in ("alpha", "dist", "dkd", "ttm"):
        settings = {key: ALL_LOSSES[key]} | ({"temperature": 2.0} if key == "alpha" else {})
        settings |= {"cross_entropy": 1.0}
        assert Params.model_validate({**toy_params(), "methods": {"at": settings}}).methods["at"].uses_logits
