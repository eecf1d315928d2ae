"""`moonshine status` says how far an experiment is, from what runs leave on disk, without torch."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import environment, write_params
from tests.support.project import run_moonshine, toy_params

GONE = 2**22 - 1  # no process has this id: it is the greatest that Linux gives


def beat(project: Path, row: str, **changes: Any) -> Path:
    """The folder of a run whose last sign of life is as told; it is not old before the test ends."""
    folder = project / "runs/toy" / row / "seed0" / "0123456789abcdef"
    folder.mkdir(parents=True)
    content = {"epoch": 2, "step": 15, "steps": 20, "seconds_left": 61, "written": time.time() + 3600}
    content.update(process=os.getpid(), host=socket.gethostname())
    (folder / "progress.json").write_text(json.dumps({**content, **changes}))
    (folder / "curve.csv").write_text("epoch,val_top1\n1,12.5\n")
    return folder


def status_of(project: Path) -> dict[str, dict[str, Any]]:
    content = json.loads(run_moonshine("status", "--json", cwd=project).stdout)
    return {run["row"]: run for run in content["runs"]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    params = toy_params()
    params["networks"].update(dict.fromkeys(("a", "b", "c", "d"), params["networks"]["student"]))
    params["train"] = ["teacher", "a", "b", "c", "d"]
    write_params(tmp_path, params)
    return tmp_path


def test_every_state_is_told_apart(project: Path) -> None:
    beat(project, "train/teacher")
    beat(project, "train/a", process=GONE)
    beat(project, "train/b", host="elsewhere", process=GONE, written=time.time() - 1000)
    beat(project, "train/c", diverged="loss not finite")
    (beat(project, "train/d", process=GONE) / "final.json").write_text("{}")
    runs = status_of(project)
    assert {row: run["state"] for row, run in runs.items()} == {
        "train/teacher": "running",
        "train/a": "stopped",
        "train/b": "silent",
        "train/c": "diverged",
        "train/d": "finished",
        "distil/at/student": "waiting",
    }
    running = runs["train/teacher"]
    assert (running["epoch"], running["epochs"], running["step"], running["top1"]) == (2, 2, 15, 12.5)
    assert running["seconds_left"] == 61
    assert runs["train/a"]["seconds_left"] is None


def test_an_old_run_beside_a_published_model_does_not_count_as_under_way(project: Path) -> None:
    folder = beat(project, "train/a", process=GONE, written=time.time() - 1000)
    model = project / "models/toy/train/a/seed0.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"")
    assert status_of(project)["train/a"]["state"] == "done"
    beat_of_new_run = json.loads((folder / "progress.json").read_text()) | {"written": time.time() + 10}
    (folder / "progress.json").write_text(json.dumps(beat_of_new_run))
    assert status_of(project)["train/a"]["state"] == "stopped"


def test_a_sign_of_life_that_is_half_written_is_passed_over(project: Path) -> None:
    (beat(project, "train/a") / "progress.json").write_text('{"epoch": 1, "st')
    assert status_of(project)["train/a"]["state"] == "waiting"


def test_the_table_is_for_people_and_needs_no_torch(project: Path) -> None:
    beat(project, "train/teacher")
    program = (
        "import sys; from moonshine import cli; code = cli.main(['status']); sys.exit(code or 'torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=project, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "toy: of 6 networks 1 running, 5 waiting; 0 of 6 rows measured" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("train/teacher")]
    assert line.split() == ["train/teacher", "0", "running", "2/2", "12.50", "01:01"]


def test_watching_ends_when_all_is_trained(tmp_path: Path) -> None:
    write_params(tmp_path, toy_params())
    for row in ("train/teacher", "distil/at/student"):
        model = tmp_path / "models/toy" / row / "seed0.safetensors"
        model.parent.mkdir(parents=True)
        model.write_bytes(b"")
    result = run_moonshine("status", "--watch", "0.1", cwd=tmp_path)
    assert "of 2 networks 2 done" in result.stdout
    refused = run_moonshine("status", "--watch", "0", cwd=tmp_path, check=False)
    assert refused.returncode == 2


def test_a_real_run_is_seen_running_and_killed(tmp_path: Path) -> None:
    params = toy_params()
    params["recipe"].update(epochs=50_000, lr_steps=[])
    write_params(tmp_path, params)
    run_moonshine("prepare", cwd=tmp_path)
    command = [sys.executable, "-m", "moonshine", "train", "teacher", "--seed", "0"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    try:
        while not list(tmp_path.glob("runs/toy/train/teacher/seed0/*/curve.csv")):
            assert process.poll() is None
            time.sleep(0.2)
        assert status_of(tmp_path)["train/teacher"]["state"] == "running"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = status_of(tmp_path)["train/teacher"]
    assert killed["state"] == "stopped"
    assert killed["epochs"] == 50_000
    assert 0 < killed["top1"] <= 100
