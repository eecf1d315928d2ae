"""The toy experiment before anything has run: params, a manifest of data, a teacher of some bytes; without torch."""

import copy
from pathlib import Path
from typing import Any

from benchmarks.separate_project import write_params
from moonshine.params import Params, read_params
from moonshine.project import artefacts
from moonshine.project.rows import Row
from moonshine.runtime.files import write_checked_json
from tests.support.project import toy_params

TRAIN, DISTIL = Row("train", "teacher"), Row("distil", "student", "at")
MANIFEST: dict[str, Any] = {
    "encoding": "raw",
    "shape": [1, 12, 12],
    "classes": [str(digit) for digit in range(10)],
    "splits": {"train": {"count": 8, "sha256": 64 * "1"}, "val": {"count": 4, "sha256": 64 * "2"}},
}


def write_inputs(**manifest: Any) -> Params:
    """In the working directory; returns the params."""
    write_params(Path(), toy_params())
    params = read_params(Path("params.yaml"))
    write_checked_json(artefacts.manifest(params.dataset.name), {**MANIFEST, **manifest})
    teacher = artefacts.named_model(params.experiment, params.teacher)
    teacher.parent.mkdir(parents=True)
    teacher.write_bytes(b"a teacher")
    return params


def changed_params(path: str, value: Any) -> Params:
    """The toy experiment's params with another value at `section.key`."""
    params = copy.deepcopy(toy_params())
    *sections, key = path.split(".")
    place = params
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    write_params(Path(), params)
    return read_params(Path("params.yaml"))
