"""The folder of a run: when it is finished, what is refused, and why an older run is not resumed."""

import json
from pathlib import Path
from typing import Any

import pytest

from moonshine.errors import CheckpointError, DataError
from moonshine.params import Params
from moonshine.runs.identity import identity_hash
from moonshine.runs.run_folder import RESULT, RESULT_RECORD, RunFolder, older_runs
from tests.support.small_runs import TRAIN, changed_params, write_inputs

MODEL = b"a trained network"


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    return write_inputs()


@pytest.fixture
def run(params: Params) -> RunFolder:
    return RunFolder.open(params, TRAIN, 0)


def finish(run: RunFolder, **record: Any) -> dict[str, Any]:
    run.finish(MODEL, {"row": run.row.name, **record})
    found = run.finished()
    assert found is not None
    assert found[0] == MODEL
    return found[1]


def test_a_new_run_has_a_folder_named_by_its_identity_and_is_not_finished(run: RunFolder) -> None:
    assert run.path == Path("runs/toy/train/teacher/seed0", identity_hash(run.identity))
    assert older_runs(run.parent) == [(run.path, run.identity)]
    assert run.finished() is None


def test_what_was_finished_is_found_again_with_its_record(run: RunFolder, params: Params) -> None:
    record = finish(run, seconds=1.5)
    assert record.items() >= {"row": TRAIN.name, "seconds": 1.5, "run": run.path.name}.items()
    assert RunFolder.open(params, TRAIN, 0).finished() == (MODEL, record)
    assert "adopted" not in record


def test_a_network_without_its_record_is_not_finished(run: RunFolder) -> None:
    (run.path / RESULT).write_bytes(MODEL)
    assert run.finished() is None


def test_a_finished_run_keeps_no_checkpoints(run: RunFolder) -> None:
    names = ["step-000000001.pt", "step-000000001.json", "step-000000001.pt.corrupt", ".step-000000002.pt.tmp-0a"]

    def write_checkpoints() -> None:
        for name in names:
            (run.path / name).touch()

    write_checkpoints()
    assert run.finished() is None
    assert all((run.path / name).exists() for name in names)
    run.finish(MODEL, {"row": run.row.name})
    assert not any((run.path / name).exists() for name in names)
    write_checkpoints()  # a kill may come between
    assert run.finished() is not None
    assert sorted(path.name for path in run.path.iterdir()) == [RESULT_RECORD, RESULT, "identity.json"]


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(MODEL[::-1]), Path.unlink], ids=["changed", "gone"])
def test_a_damaged_network_is_refused(damage: Any, run: RunFolder) -> None:
    finish(run)
    damage(run.path / RESULT)
    with pytest.raises(DataError, match=rf"{RESULT}: damaged after the run had finished; delete {run.path} to train"):
        run.finished()


def test_a_damaged_record_is_refused(run: RunFolder) -> None:
    finish(run, seconds=1.5)
    path = run.path / RESULT_RECORD
    path.write_text(path.read_text().replace("1.5", "2.5"))
    with pytest.raises(DataError, match=f"{RESULT_RECORD}: damaged .*; delete {run.path} to train again"):
        run.finished()


def test_another_runs_files_are_refused(run: RunFolder, params: Params) -> None:
    finish(run)
    other = RunFolder.open(params, TRAIN, 1)
    for name in (RESULT, RESULT_RECORD):
        (run.path / name).rename(other.path / name)
    with pytest.raises(CheckpointError, match=f"{RESULT_RECORD}: belongs to run {run.path.name}; delete {other.path}"):
        other.finished()


def test_the_record_of_a_run_that_continues_an_older_one_names_it(run: RunFolder) -> None:
    run.note_adoption({"run": "0123456789abcdef", "epoch": 3})
    assert finish(run)["adopted"] == {"run": "0123456789abcdef", "epoch": 3}


def test_what_differs_from_the_most_similar_older_run_is_reported(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder.open(changed_params("recipe.lr", 0.04), TRAIN, 0)
    capsys.readouterr()
    recipe = {**run.identity["recipe"], "lr": 0.04, "momentum": 0.8}
    RunFolder.open(changed_params("recipe", recipe), TRAIN, 0)
    reported = capsys.readouterr().err
    assert reported.endswith("differs in recipe.momentum: 0.9 -> 0.8\n")


def test_the_same_run_continues_silently(run: RunFolder, params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert RunFolder.open(params, TRAIN, 0).path == run.path
    assert capsys.readouterr().err == ""


def test_an_older_run_whose_identity_is_damaged_is_left_out_with_a_warning(
    run: RunFolder, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = run.path / "identity.json"
    content = json.loads(identity.read_text())
    identity.write_text(json.dumps({**content, "seed": 7}))
    other = RunFolder.open(changed_params("recipe.lr", 0.04), TRAIN, 0)
    assert [path for path, _ in older_runs(run.parent)] == [other.path]
    assert f"warning: {identity}: damaged" in capsys.readouterr().err
