"""What Snakemake and DVC disagree on, and what is remembered and refused when they are brought into step."""

import os
from pathlib import Path

import pytest
from dvc.repo import Repo

from moonshine.checks.made_for import Mismatch
from moonshine.engines.dvc_project import Staleness, outputs
from moonshine.engines.snakemake_plan import Plan
from moonshine.engines.sync import _differences, _hashes_of_large, _refuse_false_records, _require_no_dangling_links
from moonshine.errors import DataError
from tests.support.code_project import copy_recorded, make_recorded_project

STAGE_OF = {"a.txt": "a", "b.txt": "b", "b.csv": "b"}
ALL = frozenset(STAGE_OF)
NOTHING: frozenset[str] = frozenset()


def differences(stale: set[str], pending: set[str], remembered: frozenset[str] = ALL) -> list[str]:
    """Between a DVC that would run these stages, and a Snakemake that would make these files."""
    state = Staleness(frozenset(stale), frozenset(stale))
    return _differences(state, Plan(frozenset(pending), remembered), STAGE_OF)


@pytest.mark.parametrize(("stale", "pending"), [(set(), set()), ({"b"}, {"b.txt", "b.csv"}), ({"b"}, {"b.csv"})])
def test_plans_of_the_same_stages_agree(stale: set[str], pending: set[str]) -> None:
    """A stage is pending if one of its files is."""
    assert differences(stale, pending) == []


def test_a_stage_that_only_one_engine_would_run_is_named() -> None:
    assert differences({"a"}, {"b.txt"}) == ["b: only Snakemake would run it", "a: only DVC would run it"]


def test_files_that_dvc_does_not_have_are_snakemakes_own() -> None:
    assert differences(set(), {"data/params-checked.txt"}) == []


def test_a_valid_file_without_snakemakes_record_is_named() -> None:
    assert differences(set(), set(), ALL - {"b.csv"}) == ["b: Snakemake has no record of it"]


def test_of_what_is_to_be_made_no_record_is_needed() -> None:
    assert differences({"a", "b"}, {"a.txt", "b.txt", "b.csv"}, NOTHING) == []
    assert differences({"a"}, set(), ALL - {"a.txt"}) == ["a: only DVC would run it"]


def test_a_dangling_link_is_named_with_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("here")
    Path("b.txt").symlink_to("a.txt")
    _require_no_dangling_links(["a.txt", "b.txt", "not-made-yet.txt"])
    Path("a.txt").unlink()
    with pytest.raises(DataError, match=r"^b\.txt: a link to a\.txt, which is gone; `rm` the link"):
        _require_no_dangling_links(["a.txt", "b.txt"])


def test_what_dvc_lock_has_as_current_although_it_is_not_is_refused() -> None:
    _refuse_false_records({})
    wrong = {name: Mismatch(Path(f"{name}.txt"), "outdated", f"moonshine {name}") for name in ("b", "a")}
    with pytest.raises(DataError) as error:
        _refuse_false_records(wrong)
    lines = str(error.value).splitlines()
    assert [line.partition(", but")[0] for line in lines] == ["a: a.txt: outdated", "b: b.txt: outdated"]
    assert lines[0].endswith("`dvc repro --force --single-item a`")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recorded_project(tmp_path_factory.mktemp("recorded"))


def test_hashes_of_large_files_outlive_new_modification_times(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those of small ones do not: somebody may have edited them meanwhile."""
    monkeypatch.chdir(copy_recorded(recorded, tmp_path / "project"))
    large, small = Path("cached-0.txt"), Path("cached-1.txt")
    with large.open("wb") as file:
        file.truncate(10_000_001)
    with Repo() as repo:
        stage_of = outputs(repo)
        assert stage_of == {"cached-0.txt": "train@0", "cached-1.txt": "train@1", "page.txt": "report"}
        assert repo.status().keys() == {"train@0", "report"}  # DVC has hashed them all now
        kept = _hashes_of_large(repo, stage_of)
        assert [path for path, _ in kept] == [str(Path(repo.root_dir, large))]
        for path in (large, small):
            os.utime(path, (1_700_000_000, 1_700_000_000))
            assert repo.state.get(str(path.absolute()), repo.fs)[1] is None
        repo.state.save_many([(path, hash_info, None) for path, hash_info in kept], repo.fs)
        known = repo.state.get(str(large.absolute()), repo.fs)[1]
        assert known == kept[0][1]
        assert repo.state.get(str(small.absolute()), repo.fs)[1] is None
