"""What is written into dvc.lock, and what is not because it is not what a job of Snakemake's made."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from moonshine.engines.record import _altered, _last_change, commit
from moonshine.engines.snakemake_plan import METADATA
from moonshine.runtime.files import sha256
from tests.support.code_project import copy_recorded, make_recorded_project

MADE, READ = "models/net.safetensors", "data/train.arrow"
STARTED, ENDED = 1_700_000_000.0, 1_700_000_060.0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recorded_project(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def project(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a project whose stages are all up to date for DVC."""
    monkeypatch.chdir(copy_recorded(recorded, tmp_path / "project"))
    return Path()


def stages() -> dict[str, Any]:
    return yaml.safe_load(Path("dvc.lock").read_text())["stages"]


def write_cached(seed: int, text: str) -> Path:
    path = Path(f"cached-{seed}.txt")
    path.unlink()  # with DVC's links it could be a file of the cache
    path.write_text(text)
    return path


def test_stages_that_are_named_are_recorded_and_others_are_not(project: Path) -> None:
    before = stages()
    write_cached(0, "trained again\n"), write_cached(1, "trained again, too\n")
    with Repo() as repo:
        commit(repo, ["train@0"])
    after = stages()
    assert after["train@0"] != before["train@0"]
    assert after["train@1"] == before["train@1"]
    with Repo() as repo:
        assert repo.status().keys() == {"train@1", "report"}


def test_what_is_recorded_can_be_checked_out(project: Path) -> None:
    path = write_cached(0, "trained again\n")
    with Repo() as repo:
        commit(repo, ["train@0"])
        path.unlink()
        repo.checkout(targets=[str(path)], force=True)
    assert path.read_text() == "trained again\n"


def test_what_is_not_to_be_cached_is_not(project: Path) -> None:
    Path("page.txt").write_text("150 GB of licensed data\n")
    with Repo() as repo:
        commit(repo, ["report"])
    cached = [path for path in Path(".dvc/cache").rglob("*") if path.is_file()]
    assert not any(b"licensed" in path.read_bytes() for path in cached)
    assert stages()["report"]["outs"][0]["size"] == len("150 GB of licensed data\n")


def test_modification_times_stay_because_snakemake_goes_by_them(project: Path) -> None:
    path = write_cached(0, "trained again\n")
    os.utime(path, (STARTED, STARTED))
    with Repo() as repo:
        commit(repo, ["train@0"])
    assert path.stat().st_mtime == STARTED


def test_without_names_nothing_is_recorded(project: Path) -> None:
    before = Path("dvc.lock").read_bytes()
    write_cached(0, "trained again\n")
    with Repo() as repo:
        commit(repo, [])
    assert Path("dvc.lock").read_bytes() == before


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Snakemake's note of a job that made one file from another, both as the job left and saw them."""
    monkeypatch.chdir(tmp_path)
    for name, changed in ((READ, STARTED - 100), (MADE, ENDED - 1)):
        Path(name).parent.mkdir()
        Path(name).write_text(name)
        os.utime(name, (changed, changed))
    note = {"input": [READ], "starttime": STARTED, "endtime": ENDED}
    write_note(note)
    return note


def write_note(note: dict[str, Any], path: str = MADE) -> None:
    METADATA.mkdir(parents=True, exist_ok=True)
    (METADATA / base64.urlsafe_b64encode(path.encode()).decode()).write_text(json.dumps(note))


def test_what_is_as_its_job_left_it_may_be_recorded(job: dict[str, Any]) -> None:
    assert _altered(MADE) is None


def test_an_output_that_is_missing_may_not(job: dict[str, Any]) -> None:
    Path(MADE).unlink()
    assert _altered(MADE) == f"{MADE} is missing"


def test_an_output_that_no_job_made_may_not(job: dict[str, Any]) -> None:
    other = Path("models/other.safetensors")
    other.touch()
    assert _altered(str(other)) == f"Snakemake has no record of having made {other}"


@pytest.mark.parametrize("changed", [ENDED + 0.01, ENDED - 2], ids=["newer", "put in place with an older time"])
def test_an_output_of_another_time_may_not(changed: float, job: dict[str, Any]) -> None:
    os.utime(MADE, (changed, changed))
    assert _altered(MADE) == f"{MADE} was altered after its job had ended"


def test_an_input_that_is_gone_is_named(job: dict[str, Any]) -> None:
    Path(READ).unlink()
    assert _altered(MADE) == f"{READ} is gone"


def test_an_input_that_changed_while_the_job_ran_is_named(job: dict[str, Any]) -> None:
    os.utime(READ, (STARTED + 1, STARTED + 1))
    assert _altered(MADE) == f"{READ} was altered after the job had started that made {MADE}"


def test_an_input_with_an_older_time_is_told_by_its_checksum(job: dict[str, Any]) -> None:
    write_note({**job, "input_checksums": {READ: f"sha256:{sha256(Path(READ))}"}})
    assert _altered(MADE) is None
    Path(READ).write_text("other data")
    os.utime(READ, (STARTED - 100, STARTED - 100))
    assert _altered(MADE) == f"{READ} was altered after the job had started that made {MADE}"


def test_a_folder_is_as_new_as_the_newest_file_in_it(job: dict[str, Any]) -> None:
    folder = Path("results/maps/deep")
    folder.mkdir(parents=True)
    for number, changed in enumerate((STARTED, ENDED - 5)):
        (folder / f"{number}.svg").touch()
        os.utime(folder / f"{number}.svg", (changed, changed))
    for path in (folder, folder.parent):
        os.utime(path, (STARTED, STARTED))
    assert _last_change("results/maps") == ENDED - 5
    write_note(job, "results/maps")
    assert _altered("results/maps") is None
    os.utime(folder / "0.svg", (ENDED + 1, ENDED + 1))
    assert _altered("results/maps") == "results/maps was altered after its job had ended"
