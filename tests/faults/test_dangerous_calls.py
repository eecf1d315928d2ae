"""Calls that are dangerous however carefully they are used stand nowhere in the package; some in one place alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from moonshine.project.graph import PACKAGE
from support import ROOT

FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.loads",
    "shelve.open",
    "yaml.unsafe_load",
    "yaml.full_load",
    "np.load",
    "numpy.load",
    "tempfile.mktemp",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.serialization.add_safe_globals",
    "subprocess.getoutput",
}
ANYWHERE = {"extractall", "extract"}
"""Methods, whatever they are called on: archives are read, never unpacked."""
ONE_PLACE = {
    "torch.save": {"runs/checkpoints.py"},
    "torch.load": {"runs/checkpoints.py", "stages/fetch.py"},
    "yaml.load": {"params/read.py", "project/lock_file.py"},
    "yaml.safe_load": {"containers/launcher.py"},
    "os.replace": {"runtime/files.py", "inputs/download.py"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_dangerous_call(path: Path) -> None:
    module = str(path.relative_to(PACKAGE))
    for name, call in calls(path):
        where = f"{module}:{call.lineno}: {name}"
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in FORBIDDEN, where
        assert name.split(".")[-1] not in ANYWHERE, where
        assert keywords.get("shell", "False") == "False", where
        assert module in ONE_PLACE.get(name, {module}), where
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", where
        if name == "yaml.load":
            assert keywords.get("Loader") in ("_StrictLoader", "yaml.CSafeLoader"), where


def test_the_strict_yaml_loader_is_a_safe_one() -> None:
    import yaml

    from moonshine.params.read import _StrictLoader

    assert issubclass(_StrictLoader, yaml.SafeLoader)


def test_failures_are_not_swallowed() -> None:
    """No bare `except:`, no `except Exception` that neither goes on nor is shown as the defect that it is."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
                reraises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                shown = "traceback.print_exc()" in ast.unparse(node)
                assert not broad or reraises or shown, f"{path}:{node.lineno}"


def test_control_the_check_finds_what_it_forbids(tmp_path: Path) -> None:
    module = tmp_path / "bad.py"
    module.write_text("import os\nos.system('true')\n")
    assert [name for name, _ in calls(module)] == ["os.system"]


def test_rules_build_no_command_from_free_text() -> None:
    """Wildcards that reach a shell are constrained to names; nothing of params.yaml does otherwise."""
    rules = "".join(path.read_text() for path in sorted((ROOT / "workflow").rglob("*.smk")))
    for line in rules.splitlines():
        if "python -m moonshine" in line:
            assert "{params" not in line
            assert "{config" not in line
            assert "{input" not in line
