"""The description of a network by plain values, without importing torch."""

from typing import Any

from pydantic import BaseModel


def describe(network: BaseModel, classes: int, in_channels: int) -> dict[str, Any]:
    """All that `build_network` needs, as model files carry it; `network` has the keys of params.yaml."""
    settings = {key: value for key, value in network.model_dump().items() if value is not None}
    return {**settings, "classes": classes, "in_channels": in_channels}
