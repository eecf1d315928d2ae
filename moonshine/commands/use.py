"""`moonshine use`: write one of experiments/ to params.yaml, with its defaults, which makes it the current one."""

import os
from pathlib import Path

from moonshine.checks.input_folders import make_input_folders
from moonshine.errors import ParamsError
from moonshine.params.full_text import full_text
from moonshine.params.read import check_content
from moonshine.project import artefacts
from moonshine.project.git import git
from moonshine.runtime.files import sha256, write_text
from moonshine.runtime.progress import say
from moonshine.runtime.suggest import suggest

FOLDER = Path("experiments")
WRITTEN = artefacts.RUNS / "params-used.sha256"
"""The sha256 of what was last written to params.yaml, which may be overwritten whatever became of the experiment."""


def use(name: str, target: Path) -> None:
    """Check experiments/<name>.yaml and copy it to `target`, with what it leaves out filled in and marked.

    Raises ParamsError (exit code 2) and leaves `target` as it is if there is no such experiment, if its file is wrong,
    or if `target` has changes by hand that neither git nor experiments/ has.
    """
    if not FOLDER.is_dir():
        raise ParamsError(f"{FOLDER}: no such folder; run this from the project's root")
    path = FOLDER / f"{name}.yaml"
    known = {file.stem for file in FOLDER.glob("*.yaml")}
    if name not in known:
        raise ParamsError(f'unknown experiment "{name}"{suggest(name, known)}')
    text, content, filled = full_text(path)
    params = check_content(path, content)
    _require_kept_elsewhere(target)
    write_text(target, text)
    write_text(WRITTEN, sha256(target))
    make_input_folders(params)
    defaults = f"; {len(filled)} keys filled in and marked as default" if filled else ""
    say(f"{target}: now {path}, {len(params.rows)} rows, seeds {params.seeds}{defaults}")


def _require_kept_elsewhere(target: Path) -> None:
    if not target.exists() or (WRITTEN.exists() and WRITTEN.read_text() == sha256(target)):
        return
    if target.read_bytes() in map(_as_used, FOLDER.glob("*.yaml")):
        return
    if git("show", f"HEAD:./{os.path.relpath(target)}") != target.read_bytes():
        raise ParamsError(
            f"{target}: has changes that would be lost; commit them, or keep them as an experiment: "
            f"cp {target} {FOLDER}/NAME.yaml"
        )


def _as_used(path: Path) -> bytes:
    """What `use` writes for an experiment; the file as it is if that cannot be told."""
    try:
        return full_text(path)[0].encode()
    except ParamsError:
        return path.read_bytes()
