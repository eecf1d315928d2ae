"""A stage's params, code and inputs must be at its end what they were when it began, the params also as planned.

DVC writes down what they are when the stage has ended, Snakemake what they were when it planned; the stage reads them
when it begins. Where these differ, dvc.lock would say of results that they were made from something else.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moonshine.differences import differences
from moonshine.errors import DataError
from moonshine.files import sha256
from moonshine.image import LOCK
from moonshine.params.read import read_yaml
from moonshine.stages import CODE, PACKAGE, PARAMS, PLANNED, SOURCES


@contextmanager
def unchanged(path: Path, stage: str, inputs: Iterable[Path] = (), **names: str) -> Iterator[None]:
    """Around a stage with the params file `path`; `inputs` are files, `names` fill in the keys that it reads.

    Of prepared data the manifest is enough, for it has the hashes of the rest. Raises DataError (exit code 3) before
    the stage or after it, with what changed.
    """
    params = _keys(read_yaml(path), stage, names)
    planned = _keys(json.loads(os.environ[PLANNED]), stage, names) if PLANNED in os.environ else params
    if edited := differences(planned, params):
        raise DataError(f"{path}: changed since Snakemake planned this ({'; '.join(edited)}); run it again")
    modules = [*CODE[stage], *([SOURCES.format(**params["dataset"])] if stage == "prepare" else [])]
    files = {f"{PACKAGE.name}/{module}": PACKAGE / module for module in modules}
    files |= {str(file): file for file in (LOCK, *inputs)}
    before = _hashes(files)
    yield
    edited = differences(params, _keys(read_yaml(path), stage, names))
    edited += [f"{name}: changed" for name, now in _hashes(files).items() if now != before[name]]
    if edited:
        raise DataError(f"{stage}: changed while it was at work: {'; '.join(edited)}; run it again")


def _keys(content: Any, stage: str, names: dict[str, str]) -> dict[str, Any]:
    return values_at(content, [key.format(**names) for key in PARAMS[stage]])


def values_at(content: Any, keys: Iterable[str]) -> dict[str, Any]:
    """Keys such as `recipe.threads` and their values, None where there is none."""
    found = {}
    for key in keys:
        found[key] = content
        for part in key.split("."):
            found[key] = found[key].get(part) if isinstance(found[key], dict) else None
    return found


def _hashes(files: dict[str, Path]) -> dict[str, str | None]:
    return {name: sha256(file) if file.is_file() else None for name, file in files.items()}
