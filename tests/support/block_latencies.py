"""An invented file of `moonshine measure --blocks` for the searches of small_search.py."""

import json
from pathlib import Path
from typing import Any

from moonshine.params import read_params
from moonshine.project import artefacts
from tests.support.small_search import POOL, SEARCH

BLOCKS = 8
REST = 0.25
FAST: dict[str, Any] = {
    **{key: value for key, value in SEARCH.items() if key != "parameters"},
    "latency": 4.0,
    "machine": "toy-cpu",
}
"""A search within a latency; networks take from 0.61 to 6.01 ms."""


def milliseconds(block: int, conv: str) -> float:
    """Later blocks take longer, and so do convolutions that come later in the pool; exact in nanoseconds."""
    return round(0.01 * (block + 1) * (1 + 3 * POOL.index(conv)), 6)


def block_latencies(project: Path) -> dict[str, Any]:
    params = read_params(project / "params.yaml")
    return {
        "format": 1,
        "machine": "toy-cpu",
        "hardware": {"processor": "A toy", "instruction_sets": [], "cpus": 2, "governor": None, "gpu": None},
        "versions": {"moonshine": "0.1.0", "onnxruntime": "1.2.3"},
        "protocol": {
            "backend": "onnxruntime",
            "batch": 1,
            "threads": [1],
            "warm_up": 1,
            "rounds": 2,
            "runs_per_round": 2,
        },
        "networks": [
            {
                "architecture": params.search_architecture(next(iter(params.search))),
                "input": [params.dataset.channels, params.dataset.size, params.dataset.size],
                "pool": POOL,
                "blocks_ms": [[milliseconds(block, conv) for conv in POOL] for block in range(BLOCKS)],
                "rest_ms": REST,
                "check": {"networks": 12, "median_error": 0.02, "worst_error": 0.06},
            }
        ],
    }


def write_block_latencies(project: Path, content: Any = None) -> Path:
    path = project / artefacts.block_latency("toy", "toy-cpu")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content or block_latencies(project)))
    return path
