"""Files made to do harm: nothing in them runs, nothing escapes, nothing fills the memory."""

import hashlib
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moonshine.models.model_file import model_bytes
from moonshine.runtime.files import write_checked_json
from tests.faults.experiment import TRAIN, Experiment, Injections, artefact_hashes
from tests.faults.forked import command, start

MARKER = "executed"


class Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {MARKER}",)


def by_torch(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


HOSTILE: dict[str, tuple[Callable[[], bytes], int]] = {
    "a pickle that runs a command": (lambda: by_torch({"state": Payload()}), 4),
    "a bare pickle": (lambda: pickle.dumps(Payload()), 4),
    "an old torch file": (
        lambda: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03." + pickle.dumps(Payload()),
        4,
    ),
    "text": (lambda: b"state: nothing", 8),
    "an empty archive": (lambda: b"PK\x05\x06" + bytes(18), 4),
    "nested": (lambda: by_torch({"state": {"network": [[{"x": Payload()}]]}}), 4),
}


@pytest.fixture(scope="module")
def stopped(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = experiment.copy(tmp_path_factory.mktemp("hostile") / "run", "runs", "models", "results")
    running = start(folder, *TRAIN, pause="end of epoch")
    running.kill()
    running.finish()
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_is_refused(name: str, stopped: Path, tmp_path: Path, injected: Injections) -> None:
    """Its commit record fits, as an attacker would see to."""
    make, code = HOSTILE[name]
    folder = Experiment(stopped, {}).copy(tmp_path / "run")
    path = sorted(folder.glob("runs/toy/**/step-*.pt"))[-1]
    with injected("a hostile checkpoint"):
        path.write_bytes(make())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        record = {"step": int(path.name[5:14]), "bytes": path.stat().st_size, "sha256": digest}
        write_checked_json(path.with_suffix(".json"), record)
        result = command(folder, *TRAIN, prepare=limit_memory)
        assert result.code == code, result.output
        assert path.name in result.output
        assert "Traceback" not in result.output
        assert not list(folder.rglob(MARKER))
        assert artefact_hashes(folder) == {}


def limit_memory() -> None:
    """Leave two gigabytes of addresses to what comes."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2_000_000_000,) * 2)


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def described(description: Any, **tensors: Any) -> bytes:
    """A safetensors file with this description and no honest checksum."""
    text = description if isinstance(description, str) else json.dumps(description)
    return safetensors(json.dumps({"__metadata__": {"moonshine": text}, **tensors}).encode())


def honest(architecture: dict[str, Any]) -> bytes:
    """A model file with this architecture, one weight, and a checksum that is right."""
    network = torch.nn.Linear(1, 1, bias=False)
    described = {
        "name": "train/teacher/seed0",
        "architecture": {"classes": 10, "in_channels": 1, **architecture},
        "input": [1, 12, 12],
        "preprocessing": {"resize": [12, 12]},
        "normalisation": {"mean": [0.5], "std": [0.2]},
        "classes": [str(digit) for digit in range(10)],
    }
    return model_bytes(network, described)


HUGE = {"arch": "resnet18", "channels": [10**7] * 4, "classes": 10, "in_channels": 1}
MODELS: dict[str, Callable[[], bytes]] = {
    "a header of 2^63 bytes": lambda: struct.pack("<Q", 2**63),
    "a header longer than the file": lambda: struct.pack("<Q", 10**6) + b"{}",
    "a header that is no JSON": lambda: safetensors(b"{" * 1000),
    "deep nesting": lambda: safetensors(b'{"a":' * 30_000 + b"1" + b"}" * 30_000),
    "deep nesting within": lambda: described("[" * 100_000),
    "a tensor longer than the file": lambda: safetensors(
        b'{"x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    ),
    "a network of a thousand terabytes": lambda: described({"format": 1, "architecture": HUGE}),
    "no architecture for its checksum": lambda: honest({"arch": "resnet18", "depth": [[]]}),
    "an unknown architecture": lambda: honest({"arch": "x" * 1000}),
    "more channels than numbers": lambda: honest({**HUGE, "channels": [2**70] * 4}),
    "channels that are no numbers": lambda: honest({**HUGE, "channels": ["a", None, {}, []]}),
    "no channels": lambda: honest({**HUGE, "channels": [0] * 4}),
    "a network of a billion classes": lambda: honest({"arch": "regnet_y_400mf", "classes": 10**9}),
    "no architecture": lambda: described({"format": 1}),
    "a list for a description": lambda: described([1]),
    "a pickle": lambda: by_torch(Payload()),
    "an HTML page": lambda: b"<!DOCTYPE html><html><body>404</body></html>",
}


@pytest.mark.parametrize("name", MODELS)
def test_a_hostile_model_is_refused(name: str, experiment: Experiment, tmp_path: Path, injected: Injections) -> None:
    folder = experiment.copy(tmp_path / "run", "results")
    path = folder / "models/toy/train/teacher/seed0.safetensors"
    with injected("a hostile model"):
        path.write_bytes(MODELS[name]())
        result = command(folder, "evaluate", "train/teacher", prepare=limit_memory)
        assert result.code in (3, 8), result.output
        assert str(path.relative_to(folder)) in result.output
        assert "Traceback" not in result.output
        assert not list(folder.rglob(MARKER))


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)),
        "!!python/object/apply:os.system ['touch executed']",
        "experiment: !!python/object/new:os.system ['touch executed']",
        "[" * 20_000,
        "a: " + "9" * 100_000,
        "a: 1\n" * 2,
        "\0",
        "a: \ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
        "%YAML 9.9\n---\na",
    ],
    ids=[
        "bomb",
        "bomb of merges",
        "python",
        "python new",
        "deep",
        "a long number",
        "twice",
        "control",
        "surrogate",
        "version",
    ],
)
def test_a_hostile_params_file_is_refused(text: str, tmp_path: Path, injected: Injections) -> None:
    with injected("a hostile params.yaml"):
        (tmp_path / "params.yaml").write_text(text)
        result = command(tmp_path, "check")
        assert result.code == 2
        assert "error: params.yaml: " in result.output
        assert "Traceback" not in result.output
        assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_control_the_payload_works_where_nothing_refuses_it(tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    (tmp_path / "payload").write_bytes(by_torch({"state": Payload()}))
    code = "import torch; torch.load('payload', weights_only=False)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / MARKER).exists()
