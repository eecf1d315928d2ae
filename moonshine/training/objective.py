"""What a network is trained to minimise, as named parts; here from the labels alone."""

from typing import Any, Protocol

import torch
from torch import nn

from moonshine.data.class_weights import weighted_cross_entropy
from moonshine.data.labels import Labels


class Objective(Protocol):
    parts: tuple[str, ...]
    """Names of the parts of the loss, cross_entropy first."""

    def attach(self, network: nn.Module) -> None:
        """Called once with the network to train, before its first forward pass."""

    def __call__(self, logits: torch.Tensor, labels: Labels, teacher: Any, epoch: int) -> tuple[Any, ...]:
        """(total loss, parts): a scalar with gradient, and unweighted scalars in the order of `parts`."""


class CrossEntropy:
    """Training on the labels alone; `class_weights` (classes,) if classes count differently.

    `label_smoothing` is the share of the target that is spread evenly over all classes.
    """

    parts: tuple[str, ...] = ("cross_entropy",)

    def __init__(self, class_weights: torch.Tensor | None = None, label_smoothing: float = 0.0):
        self._class_weights, self._label_smoothing = class_weights, label_smoothing

    def attach(self, network: nn.Module) -> None:
        pass

    def __call__(
        self, logits: torch.Tensor, labels: Labels, teacher: None, epoch: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        loss = weighted_cross_entropy(logits, labels, self._class_weights, self._label_smoothing)
        return loss, [loss]
