"""The commands for after a fault: verify finds what is damaged, unlock frees what is stale, adopt keeps older work."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from moonshine.runtime.files import sha256
from tests.faults.damages import flip_a_bit
from tests.faults.experiment import DISTIL, TRAIN, Experiment, Injections, artefact_hashes, tiny_params
from tests.faults.forked import command, start
from tests.support.project import copy_project, run, run_moonshine


@pytest.fixture(scope="module")
def project(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project that has recorded the data and the teacher, curves in git."""
    folder = copy_project(tmp_path_factory.mktemp("verify") / "project", tiny_params())
    for name in ("data", "models", "results"):
        shutil.copytree(experiment.folder / name, folder / name)
    run_moonshine("check", "--keys", cwd=folder)
    run("dvc", "commit", "--quiet", "--force", "prepare@digits", "train@toy-teacher-0", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "results", cwd=folder)
    return folder


def test_verify_finds_nothing_where_all_is_well(project: Path) -> None:
    result = command(project, "verify")
    assert result.code == 0, result.output
    assert "6 outputs are what dvc.lock says" in result.output


DAMAGED = {
    "data/digits/train.arrow": "dvc checkout --force",
    "models/toy/train/teacher/seed0.safetensors": "dvc checkout --force",
    "results/toy/curves/train/teacher/seed0.csv": "git checkout HEAD --",
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("damage", ["flip", pytest.param("remove", marks=pytest.mark.slow)])
def test_verify_names_the_file_and_a_command_that_repairs_it(
    damage: str, name: str, project: Path, injected: Injections
) -> None:
    import random

    path = project / name
    golden = sha256(path)
    with injected("damage that verify has to find"):
        path.chmod(0o644)
        flip_a_bit(path, random.Random(1)) if damage == "flip" else path.unlink()
        result = command(project, "verify")
        assert result.code == 3
        (line,) = [line for line in result.output.splitlines() if line.startswith(f"error: {name}: ")]
        repair = line.rpartition("repair: ")[2]
        assert repair == f"{DAMAGED[name]} {name}"
        run(*repair.split(), cwd=project)
        assert sha256(path) == golden
        assert command(project, "verify").code == 0


def test_verify_does_not_trust_the_cache(project: Path, tmp_path: Path, injected: Injections) -> None:
    """A checkout of a damaged object would bring the damage back."""
    import random

    folder = shutil.copytree(project, tmp_path / "project", symlinks=True)
    name = "models/toy/train/teacher/seed0.safetensors"
    with injected("damage that verify has to find"):
        digest = run("md5sum", name, cwd=folder).stdout.split()[0]
        kept = folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
        for path in (kept, folder / name):
            path.chmod(0o644)
            flip_a_bit(path, random.Random(1))
        result = command(folder, "verify")
        assert result.code == 3
        assert f"rm -rf {kept.resolve()} {name} && dvc pull --force {name}" in result.output
        assert "dvc repro --force --single-item train@toy-teacher-0" in result.output


def test_verify_names_a_damaged_lock(project: Path, tmp_path: Path, injected: Injections) -> None:
    folder = shutil.copytree(project, tmp_path / "project", symlinks=True)
    with injected("damage that verify has to find"):
        (folder / "dvc.lock").write_text("stages: [")
        result = command(folder, "verify")
        assert result.code == 3
        assert "dvc.lock" in result.output
        assert "Traceback" not in result.output


def test_unlock_removes_stale_locks(project: Path, injected: Injections) -> None:
    with injected("stale locks of engines"):
        lock = project / ".snakemake/locks/0.input.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_text("data/digits/train.arrow\n")
        (project / ".dvc/tmp/rwlock").write_text('{"half')
        result = command(project, "unlock")
        assert result.code == 0
        assert result.output.count("stale, removed") == 2
        assert not lock.exists()
        assert run("dvc", "status", "prepare@digits", cwd=project).returncode == 0
        assert command(project, "unlock").output == "nothing was locked\n"


def test_unlock_leaves_live_owners_alone(project: Path, untrained: Path, injected: Injections) -> None:
    """A process that looks like Snakemake to all who list processes; and a stage that outlived its engine."""
    with injected("locks of live engines and stages"):
        lock = project / ".snakemake/locks/0.input.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_text("x")
        code = "import signal; signal.pause()"
        engine = subprocess.Popen(["snakemake", "-c", code], executable=sys.executable, cwd=project)
        try:
            result = command(project, "unlock")
            assert result.code == 6
            assert f"process {engine.pid}: snakemake is running here; wait for it or stop it" in result.output
            assert lock.exists()
        finally:
            engine.kill()
            engine.wait()
        assert command(project, "unlock").code == 0
        (untrained / "dvc.yaml").write_text("stages: {}\n")
        stage = start(untrained, *TRAIN, pause="training")
        result = command(untrained, "unlock")
        assert result.code == 6
        assert f"process {stage.pid} on {os.uname().nodename}" in result.output
        stage.go_on()
        assert stage.finish().code == 0


def edit_identity(folder: Path, change: str) -> Path:
    """Make the one run in the folder an older one, as if `change` (a dotted key) had been different."""
    from moonshine.runs.identity import identity_hash
    from moonshine.runtime.files import read_checked_json, write_checked_json

    (path,) = folder.glob("runs/toy/*/**/identity.json")
    identity = read_checked_json(path, "")
    section, _, key = change.partition(".")
    if key:
        identity[section][key] = "before"
    else:
        identity[section] = "before"
    older = path.parent.with_name(identity_hash(identity))
    path.parent.rename(older)
    write_checked_json(older / "identity.json", identity)
    for record in older.glob("final.json"):
        write_checked_json(record, {**read_checked_json(record, ""), "run": older.name})
    for checkpoint in older.glob("step-*.pt"):
        content = torch.load(checkpoint, weights_only=True)
        torch.save({**content, "run": older.name}, checkpoint)
        about = read_checked_json(checkpoint.with_suffix(".json"), "")
        write_checked_json(checkpoint.with_suffix(".json"), {**about, "sha256": sha256(checkpoint)})
    return older


def test_changed_code_starts_anew_and_adopt_goes_on(
    experiment: Experiment, untrained: Path, tmp_path: Path, injected: Injections
) -> None:
    running = start(untrained, *TRAIN, pause="end of epoch")
    running.kill(signal.SIGKILL)
    running.finish()
    edit_identity(untrained, "code.training/loop.py")
    anew = Experiment(untrained, {}).copy(tmp_path / "anew")
    with injected("code that changed during a run"):
        result = command(anew, *TRAIN)
        assert "an older run is not resumed because it differs in code.training/loop.py: changed" in result.output
        assert "going on" not in result.output
        assert experiment.unharmed(anew)
        result = command(untrained, "adopt", "train/teacher", "--seed", "0")
        assert result.code == 0, result.output
        result = command(untrained, *TRAIN)
        assert "resuming from epoch 1, batch 3" in result.output
        assert experiment.unharmed(untrained)
        record = json.loads((untrained / "models/toy/records/train/teacher/seed0.json").read_text())
        assert record["adopted"]["differs"] == ["code.training/loop.py: changed"]


def test_an_adoption_that_failed_is_not_recorded(untrained: Path, injected: Injections) -> None:
    running = start(untrained, *TRAIN, pause="end of epoch")
    running.kill(signal.SIGKILL)
    running.finish()
    older = edit_identity(untrained, "code.training/loop.py")
    with injected("damaged checkpoints of a run that is adopted"):
        for checkpoint in older.glob("step-*.pt"):
            checkpoint.write_bytes(b"damaged")
        assert command(untrained, "adopt", "train/teacher", "--seed", "0").code == 3
        assert command(untrained, *TRAIN).code == 0
        record = json.loads((untrained / "models/toy/records/train/teacher/seed0.json").read_text())
        assert "adopted" not in record


def test_a_finished_run_is_adopted_without_training(experiment: Experiment, tmp_path: Path) -> None:
    folder = experiment.copy(tmp_path / "run", "models", "results", "distil")
    edit_identity(folder, "torch")
    assert command(folder, "adopt", "train/teacher", "--seed", "0").code == 0
    result = command(folder, *TRAIN)
    assert "global batch size" not in result.output
    assert len(artefact_hashes(folder)) == 2
    assert experiment.unharmed(folder)


@pytest.mark.parametrize("key", ["recipe.lr", "data", "seed"])
def test_another_run_is_not_adopted(key: str, experiment: Experiment, tmp_path: Path) -> None:
    folder = experiment.copy(tmp_path / "run", "models", "results", "distil")
    edit_identity(folder, key)
    result = command(folder, "adopt", "train/teacher", "--seed", "0")
    assert result.code == 8
    assert f"cannot be adopted because it differs in {key}" in result.output


def test_of_several_older_runs_the_one_that_is_named_is_adopted(experiment: Experiment, tmp_path: Path) -> None:
    folder, other = (experiment.copy(tmp_path / name, "models", "results", "distil") for name in ("run", "other"))
    by_torch, by_code = edit_identity(folder, "torch"), edit_identity(other, "code.training/loop.py")
    shutil.copytree(by_code, by_torch.with_name(by_code.name))
    result = command(folder, "adopt", "train/teacher", "--seed", "0")
    assert result.code == 2
    assert f"{by_torch.name}: differs in torch: before -> " in result.output
    assert f"{by_code.name}: differs in code.training/loop.py: changed" in result.output
    assert command(folder, "adopt", "train/teacher", "--seed", "0", "--run", by_code.name[:8]).code == 0
    assert command(folder, *TRAIN).code == 0
    record = json.loads((folder / "models/toy/records/train/teacher/seed0.json").read_text())
    assert record["adopted"] == {"run": by_code.name, "differs": ["code.training/loop.py: changed"]}


def test_adopt_says_what_there_is_to_choose(experiment: Experiment, untrained: Path, tmp_path: Path) -> None:
    result = command(untrained, "adopt", "train/teacher", "--seed", "0")
    assert result.code == 3
    assert "no older run with work in it" in result.output
    folder = experiment.copy(tmp_path / "run", "models", "results", "distil")
    assert command(folder, "adopt", "train/teacher", "--seed", "0").code == 3  # the present run has finished
    assert command(folder, *DISTIL, "--nonsense").code == 2


def databases(project: Path) -> list[Path]:
    code = "from dvc.repo import Repo; print(Repo().site_cache_dir)"
    folder = Path(run(sys.executable, "-c", code, cwd=project).stdout.strip())
    return [folder / "links" / "cache.db", folder / "md5s" / "cache.db"]


@pytest.mark.slow
def test_engines_memories_that_are_damaged_end_in_a_line(project: Path, injected: Injections) -> None:
    refused = 0
    for path in filter(Path.exists, databases(project)):
        for content in (b"no database" * 1000, path.read_bytes()[:5000]):
            with injected("a damaged database of DVC's"):
                path.write_bytes(content)
                result = command(project, "verify")
                if result.code:
                    refused += 1
                    assert (result.code, result.output.count("\n")) == (5, 1)
                    assert f"`rm -r {path.parent.parent}`" in result.output
                    shutil.rmtree(path.parent.parent)
                assert command(project, "verify").code == 0
    assert refused


@pytest.mark.slow
def test_a_database_that_another_process_holds_is_named(project: Path) -> None:
    import sqlite3

    assert command(project, "verify").code == 0
    holders = [sqlite3.connect(path) for path in databases(project) if path.exists()]
    assert holders
    for holder in holders:
        holder.execute("BEGIN EXCLUSIVE")
    result = command(project, "record")  # after a minute, DVC's patience
    assert (result.code, "Traceback" in result.output) == (6, False)
    assert "wait for the process that holds it" in result.output
    for holder in holders:
        holder.close()
    assert command(project, "verify").code == 0
