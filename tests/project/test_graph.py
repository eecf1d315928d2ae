"""What counts as code of a stage, and that DVC counts the same."""

import hashlib
import shutil
from pathlib import Path, PurePath

import pytest

from benchmarks.separate_project import ROOT
from moonshine.engines.dvc_project import hash_of_list
from moonshine.project import graph
from moonshine.project.graph import CODE, code_files, is_code
from tests.support.code_project import NOT_CODE, dvc_hashes, leave_behind, make_code_project, write_files

MODULES = {"net.py": "NET = 1\n", "page.html": "<p>{page}</p>\n", "sub/__init__.py": "", "sub/part.py": "PART = 2\n"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one folder of four files that count, which `code_files` looks at instead of moonshine/."""
    write_files(tmp_path / "package", {f"folder/{name}": text for name, text in MODULES.items()})
    write_files(tmp_path / "package", {"other/net.py": "", "stages/train.py": "", "stages/report.py": ""})
    monkeypatch.setattr(graph, "PACKAGE", tmp_path / "package")
    return tmp_path / "package"


@pytest.mark.parametrize("name", ["net.py", "report/page.html", "sub/__init__.py"])
def test_modules_and_templates_are_code(name: str) -> None:
    assert is_code(PurePath(name))


@pytest.mark.parametrize("name", NOT_CODE)
def test_what_editors_and_caches_leave_is_not_code(name: str) -> None:
    assert not is_code(PurePath(name))


def test_the_files_of_a_folder_are_listed_at_any_depth(package: Path) -> None:
    assert code_files(["folder"]) == sorted(f"folder/{name}" for name in MODULES)


def test_a_single_file_brings_none_of_its_neighbours(package: Path) -> None:
    assert code_files(["stages/train.py", "other"]) == ["other/net.py", "stages/train.py"]


def test_what_is_declared_twice_is_listed_once(package: Path) -> None:
    assert code_files(["folder", "folder/net.py"]) == code_files(["folder"])


def test_what_is_left_in_a_folder_is_not_listed(package: Path) -> None:
    leave_behind(package / "folder")
    assert code_files(["folder"]) == sorted(f"folder/{name}" for name in MODULES)


def test_a_folder_above_whose_name_begins_with_a_dot_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a checkout in ~/.cache has it."""
    write_files(tmp_path / ".hidden" / "package", {"folder/net.py": ""})
    monkeypatch.setattr(graph, "PACKAGE", tmp_path / ".hidden" / "package")
    assert code_files(["folder"]) == ["folder/net.py"]


def test_dvc_hashes_the_files_that_count_and_no_others(tmp_path: Path) -> None:
    """For every folder that a stage declares, of the code as it is here, with all kinds of other files among it."""
    shutil.copytree(ROOT / "moonshine", tmp_path / "moonshine", ignore=shutil.ignore_patterns("__pycache__"))
    folders = sorted({name for names in CODE.values() for name in names if not name.endswith(".py")})
    deps = [f"moonshine/{name}" for name in folders]
    project = make_code_project(tmp_path, {}, {"all": {"cmd": "true", "deps": deps, "outs": ["out.txt"]}})
    clean = dvc_hashes(project)
    for name in folders:
        leave_behind(project / "moonshine" / name)
    assert clean.keys() == set(deps)
    assert dvc_hashes(project) == clean
    for name in folders:
        md5s = {PurePath(file).relative_to(name).parts: md5(graph.PACKAGE / file) for file in code_files([name])}
        assert clean[f"moonshine/{name}"] == hash_of_list(md5s), name


@pytest.mark.parametrize("name", ["sub/new.py", "new.html"])
def test_dvc_sees_a_new_file_that_counts(name: str, tmp_path: Path) -> None:
    stages = {"all": {"cmd": "true", "deps": ["moonshine/folder"], "outs": ["out.txt"]}}
    files = {f"moonshine/folder/{module}": text for module, text in MODULES.items()}
    project = make_code_project(tmp_path, files, stages)
    before = dvc_hashes(project)
    write_files(project, {f"moonshine/folder/{name}": ""})
    assert dvc_hashes(project) != before


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
