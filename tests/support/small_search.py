"""A search among networks so small that a candidate takes milliseconds."""

from typing import Any

from tests.faults.experiment import tiny_params

POOL = ["S", "G(2)", "G(N)", "B(2)", "BG(2,2)", "BG(2,M)"]
SEARCH: dict[str, Any] = {
    "arch": "resnet18",
    "stem": "3x3",
    "channels": [4, 4, 8, 8],
    "parameters": 4000,
    "tolerance": 0.1,
    "pool": POOL,
    "candidates": 6,
    "criterion": "fisher",
    "seed": 0,
    "batch": 16,
}
CONTROLS: dict[str, dict[str, Any]] = {
    "small": {},
    "chance": {"criterion": "random"},
    "largest": {"criterion": "parameters"},
}


def search_params(**changes: Any) -> dict[str, Any]:
    """The tiny experiment with a search and two controls, all with these changes; it saves after each candidate."""
    searches = {name: {**SEARCH, **control, **changes} for name, control in CONTROLS.items()}
    return {**tiny_params(), "search": searches}
