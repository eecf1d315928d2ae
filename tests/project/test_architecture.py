"""The house: folders stand on floors, imports go down, and what can change a stage's outputs is declared by it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from moonshine.project.graph import CHECK, CODE, PACKAGE, SOURCES, code_files, is_code
from tests.support.project import run

FLOORS = [
    {"__init__", "errors"},
    {"project"},
    {"runtime"},
    {"models"},
    {"params"},
    {"images"},
    {"inputs"},
    {"runs"},
    {"checks", "data"},
    {"costs", "distillation", "drawing", "evaluation", "export", "predictions", "preparation"},
    {"comparison", "report", "search", "sources", "training"},
    {"stages"},
    {"commands", "containers", "deployment", "engines"},
    {"api", "cli"},
    {"__main__"},
]
"""From the ground up; docs/architecture.md shows them the other way round. A folder knows nothing of its neighbours."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.read_text().strip())


def room(module: str) -> str:
    """The folder of a module, or its own name where it lies in none."""
    return Path(module).parts[0].removesuffix(".py")


def imports(module: str) -> Iterator[str]:
    """What of this package a module imports anywhere in it, as files."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            parts = node.module.split(".")[1:]
            for name in node.names:
                module_of_name = Path(*parts).with_suffix(".py") if parts else Path("__init__.py")
                paths = [Path(*parts, f"{name.name}.py"), module_of_name, Path(*parts, "__init__.py")]
                yield str(next(path for path in paths if (PACKAGE / path).is_file()))
        elif isinstance(node, ast.Import):
            assert not any(name.name.startswith(PACKAGE.name) for name in node.names), module


def test_every_folder_stands_on_a_floor() -> None:
    assert {room(module) for module in MODULES} == set(FLOOR)


def test_at_most_six_modules_lie_in_no_folder() -> None:
    assert len([module for module in MODULES if "/" not in module]) <= 6


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__.py"])
def test_imports_go_down_the_floors(module: str) -> None:
    """But for __init__.py, which names what is public and imports it when it is asked for."""
    own = room(module)
    upward = {other for other in imports(module) if room(other) != own and FLOOR[room(other)] >= FLOOR[own]}
    assert upward == set()


@pytest.mark.parametrize("stage", [stage for stage in CODE if stage != CHECK])
def test_a_stage_declares_what_its_code_imports_of_what_decides_bytes(stage: str) -> None:
    """Whatever it reaches through folders that decide none, such as runs/ and checks/, cannot change its outputs.

    The check of params.yaml always writes the same file, so params/ decides no bytes.
    """
    sources = code_files(["sources"])
    deciding = {*code_files(name for other in CODE if other != CHECK for name in CODE[other]), *sources}
    declared = {*code_files(CODE[stage]), *(sources if stage == "prepare" else [])}
    used = {other for module in declared if module.endswith(".py") for other in imports(module)}
    assert used & deciding - declared == set()


def test_no_source_imports_another() -> None:
    """A stage declares the one that its data set names."""
    sources = code_files(["sources"])
    assert {module: used for module in sources if (used := {*imports(module)} & {*sources})} == {}


def test_all_that_git_has_of_the_package_counts_as_code() -> None:
    """Else a stage would not become stale by a file of another kind."""
    tracked = run("git", "ls-files", "moonshine/*/*", cwd=PACKAGE.parent).stdout.splitlines()
    assert tracked
    assert [path for path in tracked if not is_code(Path(path))] == []


def test_what_stages_declare_exists() -> None:
    for names in CODE.values():
        for name in names:
            assert (PACKAGE / name).exists(), name
    assert code_files([SOURCES.format(source="digits")]) == ["sources/digits.py"]
