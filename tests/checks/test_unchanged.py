"""What changes while a stage is at work is noticed at its end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.separate_project import write_params
from moonshine.checks import unchanged as module
from moonshine.checks.unchanged import unchanged
from moonshine.errors import DataError
from moonshine.project import graph
from tests.support.project import toy_params

CHANGES: dict[str, Callable[[Path], object]] = {
    "changed": lambda package: (package / "report/page.py").write_text("b = 2\n"),
    "added": lambda package: (package / "report/new.py").touch(),
    "removed": lambda package: (package / "report/page.py").unlink(),
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package with the code of the report, in a project."""
    package = tmp_path / "moonshine"
    for name in ("drawing", "report", "stages"):
        (package / name).mkdir(parents=True)
    (package / "report/page.py").write_text("a = 1\n")
    (package / "stages/report.py").write_text("c = 3\n")
    write_params(tmp_path, toy_params())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(graph, "PACKAGE", package)
    monkeypatch.setattr(module, "PACKAGE", package)
    return package


@pytest.mark.parametrize("kind", CHANGES)
def test_a_file_of_code_that_is_changed_added_or_removed_is_named(kind: str, package: Path) -> None:
    file = "new.py" if kind == "added" else "page.py"
    line = rf"^report: changed while it was running: moonshine/report/{file}: changed; run it again$"
    with pytest.raises(DataError, match=line), unchanged(Path("params.yaml"), "report"):
        CHANGES[kind](package)


def test_what_is_no_code_of_the_stage_may_change(package: Path) -> None:
    with unchanged(Path("params.yaml"), "report"):
        (package / "report/.#page.py").touch()
        (package / "report/notes.txt").touch()
        (package / "stages/train.py").touch()
