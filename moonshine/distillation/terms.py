"""The terms of an objective that compare logits, and the checks of the numbers that they are given."""

import math
from typing import Protocol

import torch

from moonshine.data.labels import Labels


class LogitTerm(Protocol):
    """A weighted sum of losses that compare the student's logits with the teacher's."""

    parts: tuple[str, ...]
    """Names of the losses, as columns of a training's curve."""

    def losses(self, student: torch.Tensor, teacher: torch.Tensor, labels: Labels) -> tuple[torch.Tensor, ...]:
        """Unweighted scalars, in the order of `parts`; logits are (batch, classes), labels as in a recipe's batches."""

    def weights(self, epoch: int) -> tuple[float, ...]:
        """The weight of each loss in an epoch, counted from 1."""


def require_positive(**settings: float) -> None:
    """Raise ValueError for a number that is not finite and greater than 0; names use `__` for the dot of a key."""
    for name, value in settings.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name.replace('__', '.')}: must be greater than 0, found {value}")


def require_weights(**settings: float) -> None:
    """Raise ValueError for a weight that is not finite or negative, or if all of them are 0."""
    for name, value in settings.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name.replace('__', '.')}: must be at least 0, found {value}")
    if not any(settings.values()):
        raise ValueError(f"{', '.join(settings).replace('__', '.')}: must not all be 0")
