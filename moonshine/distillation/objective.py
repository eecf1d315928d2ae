"""What a student minimises: cross-entropy with the labels, and its distance to the teacher."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from moonshine.data.class_weights import weighted_cross_entropy
from moonshine.data.labels import Labels
from moonshine.distillation.attention_transfer import FORMS, MEAN_SQUARE, attention_loss, attention_map
from moonshine.distillation.dist import DistSettings, DistTerm
from moonshine.distillation.dkd import DkdSettings, DkdTerm
from moonshine.distillation.knowledge_distillation import KDTerm
from moonshine.distillation.logit_standardisation import standardise_logits
from moonshine.distillation.teacher import TeacherOutputs
from moonshine.distillation.terms import LogitTerm
from moonshine.distillation.ttm import TtmSettings, TtmTerm
from moonshine.models.features import FeatureTap


class Distillation:
    """The weighted sum of the cross-entropy with the labels and of the losses that the settings ask for:

        c * cross-entropy
        + alpha * kd                                         (alpha, temperature)
        + dist.beta * inter + dist.gamma * intra             (dist)
        + w(e) * (dkd.alpha * target + dkd.beta * other)     (dkd)
        + ttm.weight * TTM or WTTM                           (ttm)
        + sum over groups of beta_g * attention of group g   (beta, groups)

    c is `cross_entropy`; without it, 1 - alpha if there is an alpha, otherwise 1. All losses are means over the images
    of the batch, except `intra`, which is of the whole batch (dist.py). The modules of this folder define each.
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
        cross_entropy: float | None = None,
        standardise_logits: bool = False,
        dist: DistSettings | None = None,
        dkd: DkdSettings | None = None,
        ttm: TtmSettings | None = None,
        class_weights: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
    ):
        """The keyword arguments are the keys of a method in params.yaml, and what a recipe has for the labels.

        `layers` are the paths of all the student's layers whose attention may be compared; `groups` picks some, counted
        from 1, each paired with the teacher's layer of that number. `beta` is one for all or one per group.
        The attention loss is added from `first_epoch` to `last_epoch`, counted from 1. `standardise_logits` is for all
        losses that compare logits. `class_weights` (classes,) multiply the cross-entropy with the labels; None for
        classes that count alike. `label_smoothing` is the share of its target that is spread evenly over all classes.
        Raises ValueError for an unknown form, for a number out of range, if beta does not have one value per group, and
        for `standardise_logits` without a loss that compares logits.
        """
        self.groups, self.form = tuple(groups), form
        self.betas = tuple(beta) if isinstance(beta, Sequence) else (beta,) * len(self.groups)
        if form not in FORMS:
            raise ValueError(f'form: unknown "{form}"; must be one of {", ".join(FORMS)}')
        if len(self.betas) != len(self.groups):
            raise ValueError(f"beta: {len(self.betas)} values for {len(self.groups)} groups")
        for weight in self.betas:
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"beta: must be at least 0, found {weight}")
        if cross_entropy is not None and not (math.isfinite(cross_entropy) and cross_entropy >= 0):
            raise ValueError(f"cross_entropy: must be at least 0, found {cross_entropy}")
        self._terms: list[LogitTerm] = []
        if alpha is not None:
            self._terms.append(KDTerm(alpha, temperature))
        if dist is not None:
            self._terms.append(DistTerm(**dist))
        if dkd is not None:
            self._terms.append(DkdTerm(**dkd))
        if ttm is not None:
            self._terms.append(TtmTerm(**ttm))
        if standardise_logits and not self._terms:
            raise ValueError("standardise_logits: no loss compares logits; add alpha, dist, dkd or ttm")
        if cross_entropy == 0 and not (alpha or dist is not None or dkd or ttm or any(self.betas)):
            raise ValueError("cross_entropy: 0, like the weights of all other losses, so there is nothing to minimise")
        self._standardises = standardise_logits
        self._cross_entropy = 1 - (alpha or 0) if cross_entropy is None else cross_entropy
        self.parts = (
            "cross_entropy",
            *(part for term in self._terms for part in term.parts),
            *(f"attention_{group}" for group in self.groups),
        )
        self._first, self._last = first_epoch, last_epoch
        self._class_weights, self._label_smoothing = class_weights, label_smoothing
        self._layers = tuple(layers[group - 1] for group in self.groups)

    @property
    def compares_logits(self) -> bool:
        """Whether a loss compares logits, for which student and teacher need the same classes."""
        return bool(self._terms)

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
            if self._cross_entropy != 1:
                loss = self._cross_entropy * loss
            if self._terms:
                compared = self._compared(logits.float(), teacher.logits)
            for term in self._terms:
                losses = term.losses(*compared, labels)
                parts += losses
                for weight, part in zip(term.weights(epoch), losses):
                    loss = loss + weight * part
            maps = zip(self._tap.take(), (teacher.maps[group - 1] for group in self.groups))
            distances = [attention_loss(of_student, of_teacher, self.form) for of_student, of_teacher in maps]
            if self._first <= epoch <= (self._last or epoch):
                for beta, distance in zip(self.betas, distances):
                    loss = loss + beta * distance
        return loss, [*parts, *distances]

    def _compared(self, student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits as the losses see them."""
        return (standardise_logits(student), standardise_logits(teacher)) if self._standardises else (student, teacher)
