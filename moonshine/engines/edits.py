"""What code edits amount to, compared with the versions in git that have given hashes."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePath

from moonshine.engines.dvc_project import hash_of_list
from moonshine.errors import DataError
from moonshine.project.git import git
from moonshine.project.graph import code_in, is_code
from moonshine.runtime.files import md5


def harmless_edits(path: str, digest: str) -> dict[str, bool] | None:
    """What differs between a file or folder of code and its version with this hash in dvc.lock.

    File -> whether only comments, docstrings and layout differ. None if git's history has no such version. Raises
    DataError (exit code 3) as `only_layout_changed` does.
    """
    if not digest.endswith(".dir"):
        harmless = only_layout_changed(path, "md5", digest)
        return None if harmless is None else {path: harmless}
    before = next((files for files in _folders(path) if hash_of_list(files) == digest), None)
    if before is None:
        return None
    folder = Path(path)
    now = {file.parts: md5((folder / file).read_bytes()) for file in code_in(folder)}
    harmless_in = dict[str, bool]()
    for parts in sorted(before.keys() | now.keys()):
        if before.get(parts) != now.get(parts):
            name, in_both = str(folder.joinpath(*parts)), parts in before and parts in now
            harmless_in[name] = in_both and bool(only_layout_changed(name, "md5", before[parts]))
    return harmless_in


def _folders(path: str) -> Iterator[dict[tuple[str, ...], str]]:
    """The versions of a folder in git, newest first: file -> md5."""
    known = dict[str, str]()  # most files are the same as in the revision before
    for revision in _revisions(path):
        listed = (git("ls-tree", "-r", "-z", "--full-tree", f"{revision}:./{path}") or b"").decode().split("\0")[:-1]
        blobs = {name: entry.split()[2] for entry, _, name in (line.partition("\t") for line in listed)}
        files = {name: blob for name, blob in blobs.items() if is_code(PurePath(name))}
        for blob in set(files.values()) - known.keys():
            known[blob] = md5(git("cat-file", "blob", blob) or b"")
        yield {PurePath(name).parts: known[blob] for name, blob in files.items()}


def _revisions(path: str) -> list[str]:
    return (git("log", "--format=%H", "--", path) or b"").decode().split()


def only_layout_changed(path: str, algorithm: str, digest: str) -> bool | None:
    """Whether a file differs from its version with this hash in comments, docstrings and layout at most.

    Compares the syntax trees, so it is False for a file that is not Python. None if git's history has no such version.
    Raises DataError (exit code 3) if one of them is not valid Python.
    """
    before = _version(path, algorithm, digest)
    if before is None:
        return None
    return path.endswith(".py") and _meaning(before, f"{path} of {digest}") == _meaning(Path(path).read_bytes(), path)


def _version(path: str, algorithm: str, digest: str) -> bytes | None:
    """The newest version of a file in git that has this hash."""
    versions = (git("show", f"{revision}:./{path}") or b"" for revision in _revisions(path))
    return next((v for v in versions if hashlib.new(algorithm, v, usedforsecurity=False).hexdigest() == digest), None)


def _meaning(source: bytes, name: str) -> str:
    """The syntax tree without docstrings and positions; DataError if the source cannot be parsed."""
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
