"""A stage's params, code and inputs must not change while it runs, nor its params after it was planned.

DVC records them as they are when the stage has ended, Snakemake as they were when it planned; the stage reads them
when it begins. If these differed, dvc.lock would say that results were made from something else.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moonshine.errors import DataError
from moonshine.images.store import SPLITS, read_manifest, split_path
from moonshine.params.read import read_content
from moonshine.project import artefacts
from moonshine.project.graph import CODE, PACKAGE, PARAMS, PLANNED, SOURCES, code_files
from moonshine.runtime.differences import differences
from moonshine.runtime.files import sha256


@contextmanager
def unchanged(path: Path, stage: str, inputs: Iterable[Path] = (), **names: str) -> Iterator[None]:
    """Context for a stage with the params file `path`; `inputs` are files, `names` fill in the keys that it reads.

    For prepared data, name the manifest, which has the hashes of the images: these are read again only if the inode,
    size or time of their file has changed. Raises DataError (exit code 3) before or after the stage, with what changed.
    """
    params = _keys(read_content(path), stage, names)
    planned = _keys(json.loads(os.environ[PLANNED]), stage, names) if PLANNED in os.environ else params
    if edited := differences(planned, params):
        raise DataError(f"{path}: changed since Snakemake planned this ({'; '.join(edited)}); run it again")
    declared = [*CODE[stage], *([SOURCES.format(**params["dataset"])] if stage == "prepare" else [])]
    inputs = list(inputs)
    files = {**_code(declared), **{str(file): file for file in (artefacts.RUNTIME_LOCK, *inputs)}}
    images = [split_path(file.parent, split) for file in inputs if file.name == artefacts.MANIFEST for split in SPLITS]
    before, stamps = _hashes(files), [_stamp(file) for file in images]
    yield
    edited = differences(params, _keys(read_content(path), stage, names))
    edited += [f"{file}: changed" for file, stamp in zip(images, stamps) if _stamp(file) != stamp and _is_other(file)]
    after = _hashes(files | _code(declared))  # files may have been added to a folder
    edited += [f"{name}: changed" for name, now in after.items() if now != before.get(name)]
    if edited:
        raise DataError(f"{stage}: changed while it was running: {'; '.join(edited)}; run it again")


def _code(declared: Iterable[str]) -> dict[str, Path]:
    return {f"{PACKAGE.name}/{module}": PACKAGE / module for module in code_files(declared)}


def _keys(content: Any, stage: str, names: dict[str, str]) -> dict[str, Any]:
    return values_at(content, [key.format(**names) for key in PARAMS[stage]])


def values_at(content: Any, keys: Iterable[str]) -> dict[str, Any]:
    """Keys such as `recipe.threads` and their values, None for a missing key."""
    found = {}
    for key in keys:
        found[key] = content
        for part in key.split("."):
            found[key] = found[key].get(part) if isinstance(found[key], dict) else None
    return found


def _hashes(files: dict[str, Path]) -> dict[str, str | None]:
    return {name: sha256(file) if file.is_file() else None for name, file in files.items()}


def _stamp(file: Path) -> tuple[int, int, int] | None:
    status = file.stat() if file.is_file() else None
    return status and (status.st_ino, status.st_size, status.st_mtime_ns)


def _is_other(images: Path) -> bool:
    """Whether a split is not what its manifest says; `moonshine sync` changes its time and nothing else."""
    manifest = read_manifest(images.parent)
    return not images.is_file() or sha256(images) != manifest["splits"][images.stem]["sha256"]
