"""A network described by plain values, without importing torch."""

from typing import cast

from pydantic import BaseModel

from moonshine.project.records import Architecture


def architecture_of(network: BaseModel, classes: int, in_channels: int) -> Architecture:
    """All that `build_network` needs, as model files store it; `network` has the keys of params.yaml.

    What else params.yaml says of a network, such as where its weights begin, is no part of it.
    """
    described = Architecture.__annotations__
    settings = {key: value for key, value in network.model_dump().items() if value is not None and key in described}
    return cast(Architecture, {**settings, "classes": classes, "in_channels": in_channels})
