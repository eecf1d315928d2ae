"""What a student minimises: cross-entropy, and its distance to the teacher."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from moonshine.distillation.attention_transfer import attention_loss, attention_map
from moonshine.distillation.teacher import TeacherSignals
from moonshine.models.features import FeatureTap
from moonshine.params.schema import Method


class Distillation:
    """cross-entropy + sum over the method's groups of beta_g * attention loss of group g."""

    def __init__(self, method: Method, points: tuple[str, ...]):
        assert method.groups is not None
        assert method.beta is not None
        self.groups = method.groups
        self.betas = method.beta if isinstance(method.beta, list) else [method.beta] * len(method.groups)
        self.parts = ("cross_entropy", *(f"attention_{group}" for group in self.groups))
        self._first, self._last = method.first_epoch or 1, method.last_epoch
        self._points = tuple(points[group - 1] for group in self.groups)

    def attach(self, network: nn.Module) -> None:
        self._tap = FeatureTap(network, self._points, attention_map)

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, teacher: TeacherSignals, epoch: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """`logits` (batch, classes), `labels` (batch,); returns the total and its unweighted parts, scalars."""
        loss = label_loss = cross_entropy(logits.float(), labels)
        maps = zip(self._tap.take(), (teacher.maps[group - 1] for group in self.groups))
        distances = [attention_loss(of_student, of_teacher) for of_student, of_teacher in maps]
        if self._first <= epoch <= (self._last or epoch):
            for beta, distance in zip(self.betas, distances):
                loss = loss + beta * distance
        return loss, [label_loss, *distances]
