"""What a student minimises: cross-entropy with the labels, and its distance to the teacher."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from moonshine.distillation.attention_transfer import MEAN_SQUARE, attention_loss, attention_map
from moonshine.distillation.knowledge_distillation import knowledge_loss
from moonshine.distillation.teacher import TeacherOutputs
from moonshine.models.features import FeatureTap
from moonshine.params.schema import Method


class Distillation:
    """(1 - alpha) * cross-entropy + alpha * knowledge loss + sum over groups of beta_g * attention loss of group g.

    A method without alpha has the whole cross-entropy and no knowledge loss, one without groups no attention loss.
    """

    def __init__(self, method: Method, points: tuple[str, ...]):
        """`points` are the paths of all the student's attention points, of which the method's groups pick some."""
        self.alpha, self.temperature = method.alpha, method.temperature
        self.groups = method.groups or []
        beta = method.beta or 0.0
        self.betas = beta if isinstance(beta, list) else [beta] * len(self.groups)
        self.form = method.form or MEAN_SQUARE
        self.parts = (
            "cross_entropy",
            *(["knowledge"] if self.alpha is not None else []),
            *(f"attention_{group}" for group in self.groups),
        )
        self._first, self._last = method.first_epoch or 1, method.last_epoch
        self._points = tuple(points[group - 1] for group in self.groups)

    def attach(self, network: nn.Module) -> None:
        self._tap = FeatureTap(network, self._points, attention_map)

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, teacher: TeacherOutputs, epoch: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """`logits` (batch, classes), `labels` (batch,); returns the total and its unweighted parts, scalars."""
        loss = cross_entropy(logits.float(), labels)
        parts = [loss]
        if self.alpha is not None and self.temperature is not None:
            parts.append(knowledge_loss(logits.float(), teacher.logits, self.temperature))
            loss = (1 - self.alpha) * loss + self.alpha * parts[-1]
        maps = zip(self._tap.take(), (teacher.maps[group - 1] for group in self.groups))
        distances = [attention_loss(of_student, of_teacher, self.form) for of_student, of_teacher in maps]
        if self._first <= epoch <= (self._last or epoch):
            for beta, distance in zip(self.betas, distances):
                loss = loss + beta * distance
        return loss, [*parts, *distances]
