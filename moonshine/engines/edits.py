"""What an edit of code amounts to, from the version in git that has a given hash."""

import ast
import hashlib
from pathlib import Path

from moonshine.errors import DataError
from moonshine.git import git


def only_layout_changed(path: str, algorithm: str, digest: str) -> bool | None:
    """Whether a file differs in comments, docstrings and layout at most from its version with this hash.

    That is told by the syntax trees of both, so of no file but Python's. None if git's history has no such version.
    Raises DataError (exit code 3) if one of them is not valid Python.
    """
    before = _version(path, algorithm, digest)
    if before is None:
        return None
    return path.endswith(".py") and _meaning(before, f"{path} of {digest}") == _meaning(Path(path).read_bytes(), path)


def _version(path: str, algorithm: str, digest: str) -> bytes | None:
    """The newest version of a file in git that has this hash."""
    revisions = (git("log", "--format=%H", "--", path) or b"").decode().split()
    versions = (git("show", f"{revision}:./{path}") or b"" for revision in revisions)
    return next((v for v in versions if hashlib.new(algorithm, v, usedforsecurity=False).hexdigest() == digest), None)


def _meaning(source: bytes, name: str) -> str:
    """The syntax tree without docstrings and places; DataError if it has none."""
    try:
        tree = ast.parse(source, name)
    except (SyntaxError, ValueError) as error:  # ValueError: NUL bytes
        raise DataError(f"{name}: not valid Python ({error}); fix it") from None
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert isinstance(body, list)
            if ast.get_docstring(node, clean=False) is not None:
                del body[0]
    return ast.dump(tree)
