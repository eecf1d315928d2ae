"""Which edits of code are harmless, told from the version in git that has the hash of dvc.lock."""

import hashlib
import shutil
from pathlib import Path

import pytest

from benchmarks.separate_project import commit_all, start_and_run
from moonshine.engines.edits import harmless_edits, only_layout_changed
from moonshine.errors import DataError
from tests.support.code_project import dvc_hashes, leave_behind, make_code_project, write_files

FOLDER, NET, PAGE = "moonshine/models", "moonshine/models/net.py", "moonshine/models/page.html"
FIRST = '"""A network."""\n\n\ndef width():\n    """Of the first layer."""\n    return 16  # as in the paper\n'
FILES = {NET: FIRST, PAGE: "<p>page</p>\n", f"{FOLDER}/sub/__init__.py": "", f"{FOLDER}/sub/part.py": "PART = 1\n"}
NEW_WORDS = FIRST.replace("Of the first layer.", "Its channels.").replace("# as in the paper", "# channels")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A project of three commits, and what DVC had for its folder and its module in the first.

    The second changed a line, and added to git a file that does not count; the third has nothing to do with the code.
    """
    stages = {"train": {"cmd": "true", "deps": [FOLDER, NET], "outs": ["out.txt"]}}
    project = make_code_project(tmp_path_factory.mktemp("history"), FILES, stages)
    hashes = dvc_hashes(project)
    write_files(project, {NET: FIRST.replace("16", "32"), f"{FOLDER}/notes.txt": "to do\n"})
    commit_all(project)
    write_files(project, {"README.md": "A project.\n"})
    commit_all(project)
    return project, hashes[FOLDER], hashes[NET]


@pytest.fixture
def digest(history: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder's hash in the first commit; the working directory is a copy of the project with the code of then."""
    monkeypatch.chdir(shutil.copytree(history[0], tmp_path / "project", symlinks=True))
    write_files(Path(), FILES)
    return history[1]


def test_what_is_as_it_was_differs_in_nothing(digest: str) -> None:
    assert digest.endswith(".dir")
    assert harmless_edits(FOLDER, digest) == {}


@pytest.mark.parametrize(
    "edited",
    [
        FIRST.replace("# as in the paper", "# as published"),
        NEW_WORDS,
        "# first\n" + FIRST,
        FIRST.replace("return 16", "return (\n        16\n    )"),
    ],
)
def test_comments_docstrings_and_layout_are_harmless(edited: str, digest: str) -> None:
    Path(NET).write_text(edited)
    assert harmless_edits(FOLDER, digest) == {NET: True}


def test_a_changed_line_is_not_harmless(digest: str) -> None:
    Path(NET).write_text(NEW_WORDS.replace("16", "17"))
    assert harmless_edits(FOLDER, digest) == {NET: False}


def test_each_edited_file_is_judged_for_itself(digest: str) -> None:
    Path(NET).write_text(NEW_WORDS)
    Path(FOLDER, "sub/part.py").write_text("PART = 2\n")
    assert harmless_edits(FOLDER, digest) == {NET: True, f"{FOLDER}/sub/part.py": False}


def test_a_removed_file_is_not_harmless_even_if_it_was_empty(digest: str) -> None:
    Path(FOLDER, "sub/__init__.py").unlink()
    assert harmless_edits(FOLDER, digest) == {f"{FOLDER}/sub/__init__.py": False}


def test_an_added_file_is_not_harmless_even_if_it_is_empty(digest: str) -> None:
    Path(FOLDER, "sub/new.py").touch()
    assert harmless_edits(FOLDER, digest) == {f"{FOLDER}/sub/new.py": False}


def test_a_renamed_file_is_one_that_was_removed_and_one_that_was_added(digest: str) -> None:
    Path(NET).rename(f"{FOLDER}/network.py")
    assert harmless_edits(FOLDER, digest) == {NET: False, f"{FOLDER}/network.py": False}


def test_of_a_template_no_edit_is_harmless(digest: str) -> None:
    Path(PAGE).write_text("<p>page</p>\n\n")
    assert harmless_edits(FOLDER, digest) == {PAGE: False}


def test_what_editors_and_caches_leave_does_not_count(digest: str) -> None:
    leave_behind(Path(FOLDER))
    assert harmless_edits(FOLDER, digest) == {}


def test_what_does_not_count_may_be_in_git(digest: str) -> None:
    """notes.txt came with the second commit, whose folder had another hash because of net.py alone."""
    Path(NET).write_text(FIRST.replace("16", "32"))
    of_second = dvc_hashes(Path())[FOLDER]
    Path(NET).write_text(FIRST.replace("16", "32").replace("paper", "note"))
    assert harmless_edits(FOLDER, of_second) == {NET: True}
    assert harmless_edits(FOLDER, digest) == {NET: False}


@pytest.mark.parametrize("path", [FOLDER, NET])
def test_a_version_that_was_never_committed_is_not_found(path: str, digest: str) -> None:
    Path(NET).write_text("WIDTH = 64\n")
    uncommitted = dvc_hashes(Path())[path]
    write_files(Path(), FILES)
    assert harmless_edits(path, uncommitted) is None


def test_another_folders_version_is_not_found(digest: str) -> None:
    shutil.copytree(FOLDER, "moonshine/copied")
    commit_all(Path())
    Path(NET).write_text(NEW_WORDS)
    assert harmless_edits("moonshine/copied", digest) == {}
    assert harmless_edits(f"{FOLDER}/sub", digest) is None


def test_a_single_file_is_held_against_its_own_versions(history: tuple[Path, str, str], digest: str) -> None:
    _, _, md5 = history
    assert harmless_edits(NET, md5) == {NET: True}
    Path(NET).write_text(NEW_WORDS)
    assert harmless_edits(NET, md5) == {NET: True}
    Path(NET).write_text(FIRST.replace("16", "32"))
    assert harmless_edits(NET, md5) == {NET: False}


def test_a_project_may_be_a_folder_of_a_repository(
    digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "repository" / "inner"
    write_files(inner, FILES)
    start_and_run("git", "init", "--quiet", cwd=inner.parent)
    commit_all(inner.parent)
    monkeypatch.chdir(inner)
    Path(NET).write_text(NEW_WORDS)
    assert harmless_edits(FOLDER, digest) == {NET: True}


@pytest.mark.parametrize("text", ["def width(:\n", "WIDTH = 1\0\n"])
def test_what_is_not_python_is_named(text: str, digest: str) -> None:
    Path(NET).write_text(text)
    with pytest.raises(DataError, match=rf"^{NET}: not valid Python"):
        harmless_edits(FOLDER, digest)


def test_a_version_is_found_by_other_hashes_too(digest: str) -> None:
    Path(NET).write_text(NEW_WORDS)
    assert only_layout_changed(NET, "sha256", hashlib.sha256(FIRST.encode()).hexdigest()) is True
    assert only_layout_changed(NET, "sha256", 64 * "0") is None
