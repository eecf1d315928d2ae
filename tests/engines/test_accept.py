"""An edit of code is accepted for the stages that are named, if nothing else has changed; dvc.lock is DVC's own."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moonshine.engines import accept as accepting
from moonshine.engines.accept import accept
from moonshine.errors import DataError, ParamsError
from tests.support.code_project import RECORDED_STAGES, copy_recorded, leave_behind, make_recorded_project

NET, TABLE = "moonshine/models/net.py", "moonshine/report/table.py"
NOT_ONLY_CODE = "not only code changed"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recorded_project(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(autouse=True)
def synced(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In a copy of the project; gets a line each time that Snakemake's view would be synced."""
    monkeypatch.chdir(copy_recorded(recorded, tmp_path / "project"))
    lines: list[str] = []
    monkeypatch.setattr(accepting, "sync", lambda: lines.append("synced"))
    return lines


def edit(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def locked(stage: str, path: str) -> Any:
    """The hash that dvc.lock has for what a stage depends on."""
    deps = yaml.safe_load(Path("dvc.lock").read_text())["stages"][stage]["deps"]
    return next(dep["md5"] for dep in deps if dep["path"] == path)


def refusal(*named: str, unproven: bool = False) -> str:
    """Why it is refused; dvc.lock is as it was."""
    before = Path("dvc.lock").read_bytes()
    with pytest.raises(DataError) as error:
        accept(named, unproven)
    assert Path("dvc.lock").read_bytes() == before
    return str(error.value)


def test_a_comment_is_accepted_for_the_stages_that_are_named_and_no_others(
    synced: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    edit(NET, "# as in the paper", "# as published")
    before = locked("train@0", "moonshine/models")
    accept(["train@0"], unproven=False)
    assert locked("train@0", "moonshine/models") != before
    assert locked("train@1", "moonshine/models") == before
    said = capsys.readouterr().err
    assert f"{NET}: only comments, docstrings or layout differ" in said
    assert "accepted for 1 stages" in said
    assert synced == ["synced"]


def test_a_kind_names_all_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    edit(NET, "# as in the paper", "# as published")
    accept(["train"], unproven=False)
    assert locked("train@0", "moonshine/models") == locked("train@1", "moonshine/models")
    assert "accepted for 2 stages" in capsys.readouterr().err
    assert refusal("train") == "nothing to accept: these stages are up to date"


def test_results_stay_as_the_older_code_made_them() -> None:
    before = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
    edit(NET, "# as in the paper", "# as published")
    accept(["train"], unproven=False)
    after = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
    assert {name: stage["outs"] for name, stage in after.items()} == {n: stage["outs"] for n, stage in before.items()}


def test_a_changed_line_is_refused_and_named(synced: list[str]) -> None:
    edit(NET, "16", "17")
    assert refusal("train") == f"{NET}: more than comments and docstrings changed; run the stages, or --unproven"
    assert synced == []


def test_of_several_edits_the_harmful_ones_are_named() -> None:
    edit(NET, "# as in the paper", "# as published")
    Path("moonshine/models/added.py").touch()
    lines = refusal("train").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["moonshine/models/added.py"]


def test_any_edit_of_code_is_accepted_on_the_users_word(capsys: pytest.CaptureFixture[str]) -> None:
    edit(NET, "16", "17")
    accept(["train"], unproven=True)
    assert "moonshine/models: accepted without proof" in capsys.readouterr().err
    assert refusal("train") == "nothing to accept: these stages are up to date"


def test_what_an_editor_leaves_is_no_edit() -> None:
    leave_behind(Path("moonshine/models"))
    assert refusal("train", "report") == "nothing to accept: these stages are up to date"


@pytest.mark.parametrize("unproven", [False, True])
def test_changed_data_are_never_accepted(unproven: bool) -> None:
    edit(NET, "# as in the paper", "# as published")
    edit("numbers.txt", "1", "2")
    assert refusal("train", unproven=unproven) == (
        f"train@0: {NOT_ONLY_CODE} (numbers.txt is modified); run it, or accept that first"
    )


@pytest.mark.parametrize("unproven", [False, True])
def test_a_changed_result_is_never_accepted(unproven: bool) -> None:
    edit(NET, "# as in the paper", "# as published")
    edit("cached-1.txt", "1", "2")
    assert refusal("train", unproven=unproven) == f"train@1: {NOT_ONLY_CODE} (changed outs: cached-1.txt); run it"


def test_a_stage_after_a_changed_result_is_not_accepted() -> None:
    edit(TABLE, "TABLE", "# a table\nTABLE")
    edit("cached-0.txt", "0", "2")
    assert refusal("report") == f"report: {NOT_ONLY_CODE} (cached-0.txt is modified); run it, or accept that first"


def test_deleted_code_is_refused() -> None:
    Path(TABLE).unlink()
    Path(TABLE).parent.rmdir()
    assert f"report: {NOT_ONLY_CODE} (moonshine/report is deleted)" in refusal("report", unproven=True)


def test_a_version_that_git_does_not_have_proves_nothing() -> None:
    edit(NET, "16", "17")
    accept(["train"], unproven=True)
    edit(NET, "# as in the paper", "# as published")
    lack = "the version in dvc.lock is not in git's history"
    assert refusal("train") == f"moonshine/models: {lack}; run the stages, or --unproven"


def test_code_that_dvc_lock_does_not_have_is_accepted_on_the_users_word_only() -> None:
    stages = {**RECORDED_STAGES, "report": {**RECORDED_STAGES["report"]}}
    stages["report"]["deps"] = [*stages["report"]["deps"], "moonshine/models"]
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    assert refusal("report") == "moonshine/models: dvc.lock has no version of it; run the stages, or --unproven"
    accept(["report"], unproven=True)
    assert locked("report", "moonshine/models") == locked("train@0", "moonshine/models")


def test_of_the_packages_nothing_is_harmless() -> None:
    """The lock file of the requirements counts as code, but is not Python."""
    edit("requirements/runtime.lock", "torch", "# torch\ntorch")
    assert "requirements/runtime.lock: more than comments" in refusal("train")
    accept(["train"], unproven=True)
    assert refusal("train") == "nothing to accept: these stages are up to date"


def test_an_unknown_stage_is_refused_with_the_likely_one() -> None:
    with pytest.raises(ParamsError, match=r'^unknown stage "trian" .*"?train'):
        accept(["trian"], unproven=False)
