"""Valid params files are accepted and come back as they were; mutated ones exit with 2 and name the key."""

import copy
import io
import json
import os
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from dvc.utils.serialize import load_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from moonshine.cli import main
from moonshine.errors import ParamsError
from moonshine.params import read_params
from moonshine.params.read import read_yaml
from tests.faults.experiment import tiny_params

Path_ = tuple[str | int, ...]
MANY = settings(
    max_examples=30,
    deadline=None,
    derandomize="FAULTS_COUNTS" not in os.environ,  # `make faults` looks for new ones
    suppress_health_check=list(HealthCheck),
)
NAMES = {"networks", "methods", "titles", "raw_data", "values", "files", "fetch", "fetch_teacher"}
"""Sections whose keys are the user's own names."""


def run_check(content: str) -> tuple[int, str, list[str]]:
    """Exit code, output and files of `moonshine check` on a params file."""
    with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()) as output:
        path = Path(folder, "params.yaml")
        path.write_text(content)
        code = main(["--params", str(path), "check"])
        return code, output.getvalue(), [each.name for each in Path(folder).iterdir()]


def dump(params: Any) -> str:
    return yaml.safe_dump(json.loads(json.dumps(params)), sort_keys=False, allow_unicode=True)


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The path of every key of every mapping, those below lists as well."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(value, dict):
            yield (*path, key)
        yield from places(inner, (*path, key))


def parent(params: Any, path: Path_) -> Any:
    for key in path[:-1]:
        params = params[key]
    return params


PLACES = [path for path in places(tiny_params()) if path[0] != "tables" or len(path) < 4]
KEYS = [path for path in PLACES if len(path) == 1 or path[-2] not in NAMES]


@st.composite
def valid(draw: st.DrawFn) -> dict[str, Any]:
    params = tiny_params()
    epochs = draw(st.integers(1, 500))
    steps = draw(st.lists(st.integers(1, max(1, epochs - 1)), max_size=4, unique=True)) if epochs > 1 else []
    params["recipe"].update(
        epochs=epochs,
        lr_steps=sorted(steps),
        batch_size=draw(st.integers(1, 10**6)),
        lr=draw(st.floats(1e-9, 1e9)),
        momentum=draw(st.floats(0, 0.999)),
        weight_decay=draw(st.floats(0, 1)),
        precision=draw(st.sampled_from(["float32", "tf32", "bfloat16", "float16"])),
    )
    params["seeds"] = draw(st.lists(st.integers(1, 2**31 - 1), max_size=4, unique=True))
    params["seeds"].append(0)
    params["methods"]["at"]["beta"] = draw(st.floats(0, 1e6))
    params["machine"]["checkpoint_seconds"] = draw(st.floats(1e-3, 1e6))
    line = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=40)
    params["titles"] = {"train/teacher": draw(line.filter(str.strip))}
    return params


@settings(MANY, max_examples=5)
@given(valid())
def test_valid_files_are_accepted_and_come_back(params: dict[str, Any]) -> None:
    code, output, _ = run_check(dump(params))
    assert code == 0, output
    with TemporaryDirectory() as folder:
        first, second = Path(folder, "first.yaml"), Path(folder, "second.yaml")
        first.write_text(dump(params))
        read = read_params(first)
        second.write_text(dump(read.model_dump(exclude_none=True)))
        assert isinstance(read, BaseModel)
        assert read_params(second) == read


def refused(content: str, *names: str) -> None:
    code, output, files = run_check(content)
    assert code == 2, output
    assert all(line.startswith("error: ") for line in output.splitlines())
    assert any(name in output for name in names), output
    assert "Traceback" not in output
    assert files == ["params.yaml"]


@MANY
@given(st.sampled_from(KEYS), st.sampled_from("abcdefgxyz_"), st.integers(0, 20))
def test_a_mistyped_key_is_named(path: Path_, letter: str, position: int) -> None:
    params = tiny_params()
    section, key = parent(params, path), str(path[-1])
    position %= len(key) + 1
    typo = key[:position] + letter + key[position:]
    section[typo] = section.pop(key)
    refused(dump(params), typo)


@MANY
@given(
    st.sampled_from(KEYS), st.sampled_from([{"x": 1}, [{"y": []}], "\u212a", True, -1, 10**400, float("nan"), "1e-3"])
)
def test_a_value_of_another_kind_is_named_or_was_meant(path: Path_, value: Any) -> None:
    """Text for text, truth for truth and an epoch -1 that is None are accepted or refused, but nothing falls over."""
    params = tiny_params()
    parent(params, path)[path[-1]] = copy.deepcopy(value)
    code, output, files = run_check(dump(params))
    assert code in (0, 2), output
    assert "Traceback" not in output
    assert files == ["params.yaml"]
    if isinstance(value, (dict, list)):
        assert code == 2 or path[-1] in NAMES
    if code == 2:
        assert str(path[-1]) in output or str(path[0]) in output, output


@MANY
@given(st.sampled_from([path for path in KEYS if path[0] not in ("machine", "titles", "tables")]))
def test_a_missing_key_is_named_or_optional(path: Path_) -> None:
    params = tiny_params()
    del parent(params, path)[path[-1]]
    code, output, _ = run_check(dump(params))
    assert code in (0, 2)
    assert "Traceback" not in output
    if code == 2:
        assert str(path[-1]) in output, output


@MANY
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_at_all_make_it_fall_over(content: bytes) -> None:
    with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()) as output:
        path = Path(folder, "params.yaml")
        path.write_bytes(content)
        assert main(["--params", str(path), "check"]) == 2
        assert str(path) in output.getvalue()


SCALAR = st.text(st.sampled_from("0123456789_.eExob:+-~ynofINFatrue'\" "), min_size=1, max_size=8)


@settings(MANY, max_examples=300)
@given(SCALAR)
def test_what_is_accepted_is_what_dvc_reads(scalar: str) -> None:
    """DVC reads the file by YAML 1.2."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_text(f"a: {scalar}\n")
        try:
            ours = read_yaml(path)
        except ParamsError:
            return
        assert repr(ours) == repr(load_yaml(path)), "type and value"
