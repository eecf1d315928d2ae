"""A network described by plain values, without importing torch."""

from typing import cast

from pydantic import BaseModel

from moonshine.project.records import Architecture


def architecture_of(network: BaseModel, classes: int, in_channels: int) -> Architecture:
    """All that `build_network` needs, as model files store it; `network` has the keys of params.yaml."""
    settings = network.model_dump(exclude={"recipe"}, exclude_none=True)
    return cast(Architecture, {**settings, "classes": classes, "in_channels": in_channels})
