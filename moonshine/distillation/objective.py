"""What a student minimises: cross-entropy with the labels, and its distance to the teacher."""

from collections.abc import Sequence

import torch
from torch import nn

from moonshine.data.class_weights import weighted_cross_entropy
from moonshine.data.mixing import Labels
from moonshine.distillation.attention_transfer import FORMS, MEAN_SQUARE, attention_loss, attention_map
from moonshine.distillation.knowledge_distillation import knowledge_loss
from moonshine.distillation.teacher import TeacherOutputs
from moonshine.models.features import FeatureTap


class Distillation:
    """(1 - alpha) * cross-entropy + alpha * knowledge loss + sum over groups of beta_g * attention loss of group g.

    Without alpha, the full cross-entropy and no knowledge loss; without groups, no attention loss.
    """

    def __init__(
        self,
        layers: Sequence[str],
        *,
        beta: float | Sequence[float] = 0.0,
        groups: Sequence[int] = (),
        form: str = MEAN_SQUARE,
        first_epoch: int = 1,
        last_epoch: int | None = None,
        alpha: float | None = None,
        temperature: float = 4.0,
        class_weights: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
    ):
        """The keyword arguments are the keys of a method in params.yaml, and what a recipe has for the labels.

        `layers` are the paths of all the student's layers whose attention may be compared; `groups` picks some, counted
        from 1, each paired with the teacher's layer of that number. `beta` is one for all or one per group.
        The attention loss is added from `first_epoch` to `last_epoch`, counted from 1. `class_weights` (classes,)
        multiply the cross-entropy with the labels; None for classes that count alike. `label_smoothing` is the share
        of its target that is spread evenly over all classes.
        Raises ValueError for an unknown form or if beta does not have one value per group.
        """
        self.alpha, self.temperature, self.groups, self.form = alpha, temperature, tuple(groups), form
        self.betas = tuple(beta) if isinstance(beta, Sequence) else (beta,) * len(self.groups)
        if form not in FORMS:
            raise ValueError(f'form: unknown "{form}"; must be one of {", ".join(FORMS)}')
        if len(self.betas) != len(self.groups):
            raise ValueError(f"beta: {len(self.betas)} values for {len(self.groups)} groups")
        self.parts = (
            "cross_entropy",
            *(["knowledge"] if alpha is not None else []),
            *(f"attention_{group}" for group in self.groups),
        )
        self._first, self._last = first_epoch, last_epoch
        self._class_weights, self._label_smoothing = class_weights, label_smoothing
        self._layers = tuple(layers[group - 1] for group in self.groups)

    def attach(self, network: nn.Module) -> None:
        self._tap = FeatureTap(network, self._layers, attention_map)

    def detach(self) -> None:
        """Leave the network as it was."""
        self._tap.remove()

    def __call__(
        self, logits: torch.Tensor, labels: Labels, teacher: TeacherOutputs, epoch: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """`logits` (batch, classes), `labels` (batch,), or mixed; returns the total and its unweighted parts, scalars.

        In float32, whatever the precision of the logits and features.
        """
        with torch.autocast(logits.device.type, enabled=False):
            loss = weighted_cross_entropy(logits, labels, self._class_weights, self._label_smoothing)
            parts = [loss]
            if self.alpha is not None:
                parts.append(knowledge_loss(logits.float(), teacher.logits, self.temperature))
                loss = (1 - self.alpha) * loss + self.alpha * parts[-1]
            maps = zip(self._tap.take(), (teacher.maps[group - 1] for group in self.groups))
            distances = [attention_loss(of_student, of_teacher, self.form) for of_student, of_teacher in maps]
            if self._first <= epoch <= (self._last or epoch):
                for beta, distance in zip(self.betas, distances):
                    loss = loss + beta * distance
        return loss, [*parts, *distances]
