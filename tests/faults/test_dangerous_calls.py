"""Dangerous calls that ruff's rules (S and BLE) do not know stand nowhere in the package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.separate_project import ROOT
from moonshine.project.graph import PACKAGE

FORBIDDEN = {
    "compile",
    "yaml.unsafe_load",
    "yaml.full_load",
    "np.load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.serialization.add_safe_globals",
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def dangerous(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in FORBIDDEN or name.endswith(".extract"):  # archives are read, never unpacked
                yield f"{node.lineno}: {name}"
            if name == "torch.load" and keywords.get("weights_only") != "True":
                yield f"{node.lineno}: {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_dangerous_call(path: Path) -> None:
    assert not list(dangerous(path.read_text()))


def test_control_the_check_finds_what_it_forbids() -> None:
    bad = "np.load(x)\nzipfile.ZipFile(x).extract(y)\ntorch.load(x)\ntorch.load(x, weights_only=True)\n"
    assert list(dangerous(bad)) == ["1: np.load", "2: zipfile.ZipFile(x).extract", "3: torch.load"]


def test_rules_build_no_command_from_free_text() -> None:
    """Wildcards that reach a shell are constrained to names; nothing of params.yaml does otherwise."""
    rules = "".join(path.read_text() for path in sorted((ROOT / "workflow").rglob("*.smk")))
    for line in rules.splitlines():
        if "python -m moonshine" in line:
            assert "{params" not in line
            assert "{config" not in line
            assert "{input" not in line
