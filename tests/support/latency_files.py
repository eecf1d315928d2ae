"""Invented files of `moonshine measure` for the toy experiment of measured_project.py."""

import json
from pathlib import Path
from typing import Any

from moonshine.params import read_params
from moonshine.project import artefacts

TIMES = {
    "fast-cpu": {"teacher": (10.0, 6.0), "student": (4.0, 5.0)},
    "old-cpu": {"teacher": (200.0, None), "student": (160.0, None)},
}
"""Machine -> network -> milliseconds in float32 and in int8."""


def latency_file(project: Path, machine: str) -> dict[str, Any]:
    """Measured with one thread and with two, which take half as long."""
    params = read_params(project / "params.yaml")

    def timings(name: str) -> list[dict[str, Any]]:
        return [
            {"precision": precision, "threads": threads, "median_ms": time / threads, "p10_ms": 1.0, "p90_ms": 300.0}
            for threads in (1, 2)
            for precision, time in zip(("float32", "int8"), TIMES[machine][name])
            if time
        ]

    networks = {
        name: {
            "architecture": params.architecture(name),
            "input": [params.dataset.channels, params.dataset.size, params.dataset.size],
            "weights": None,
            "timings": timings(name),
            "peak_bytes": {"float32": 1_000_000},
        }
        for name in ("teacher", "student")
    }
    return {
        "format": 1,
        "machine": machine,
        "hardware": {
            "processor": f"The {machine}",
            "instruction_sets": ["avx2"],
            "cpus": 2,
            "governor": None,
            "gpu": None,
        },
        "versions": {"moonshine": "0.1.0", "onnxruntime": "1.2.3"},
        "protocol": {
            "backend": "onnxruntime",
            "batch": 1,
            "threads": [1, 2],
            "warm_up": 10,
            "rounds": 20,
            "runs_per_round": 5,
        },
        "reference": "teacher",
        "networks": networks,
    }


def write_latency(project: Path, machine: str, **changes: Any) -> Path:
    path = project / artefacts.latency("toy", machine)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**latency_file(project, machine), **changes}))
    return path
