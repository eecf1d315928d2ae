"""DKD: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022.

With logits s of the student and t of the teacher, shape (batch, classes), the label y of each image and temperature T:

    b(z) = (p_y, 1 - p_y)  of  p = softmax(z / T)           the label against all other classes together
    q(z) = softmax over the other classes of z / T          the other classes among themselves
    target = T^2 * mean over batch of KL(b(t) || b(s))
    other  = T^2 * mean over batch of KL(q(t) || q(s))

The student minimises cross-entropy + w(e) * (alpha * target + beta * other), with w(e) = min(e / warm-up epochs, 1) in
epoch e = 1, 2, ... On ImageNet: alpha 1, beta 0.5, T 1, 1 warm-up epoch; on CIFAR-100: alpha 1, beta 2 to 8, T 4, 20
(megvii-research/mdistiller). Hinton's loss is target + (1 - p_y(t)) * other for each image: DKD is knowledge
distillation in which a confident teacher does not silence the other classes.

Everything is computed from log-softmax and log-sum-exp, so that neither p_y nor 1 - p_y is rounded to 0 before its
logarithm is taken. With two classes `other` is 0.
"""

from typing import NotRequired, TypedDict

import torch
from torch.nn.functional import log_softmax, one_hot

from moonshine.data.labels import Labels, MixedLabels
from moonshine.distillation.terms import require_positive, require_weights


class DkdSettings(TypedDict):
    """The keys of `dkd` in a method; no warm-up if left out."""

    alpha: float
    beta: float
    temperature: float
    warmup_epochs: NotRequired[int]


def dkd_losses(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(target, other) from the logits of student and teacher, (batch, classes) each, and the labels; scalars.

    `labels` are class indices, (batch,); labels that mix several classes are not defined here.
    """
    is_label = one_hot(labels, student.shape[1]).bool()
    (binary_s, others_s), (binary_t, others_t) = (
        _decoupled(logits / temperature, is_label) for logits in (student, teacher)
    )
    target = (binary_t.exp() * (binary_t - binary_s)).sum(dim=1)
    # for the label, minus infinity on both sides
    other = (others_t.exp() * (others_t - others_s).masked_fill(is_label, 0.0)).sum(dim=1)
    return temperature**2 * target.mean(), temperature**2 * other.mean()


def _decoupled(logits: torch.Tensor, is_label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(log b, log q), of shapes (batch, 2) and (batch, classes); log q is minus infinity for the label."""
    without_label = logits.masked_fill(is_label, -torch.inf)
    of_all, of_others = (torch.logsumexp(each, dim=1) for each in (logits, without_label))
    of_label = logits.masked_fill(~is_label, 0.0).sum(dim=1)
    return torch.stack([of_label - of_all, of_others - of_all], dim=1), log_softmax(without_label, dim=1)


class DkdTerm:
    """w(e) * (alpha * target + beta * other). Raises ValueError for a number out of range."""

    parts: tuple[str, ...] = ("dkd_target", "dkd_other")

    def __init__(self, alpha: float, beta: float, temperature: float, warmup_epochs: int = 0):
        require_weights(dkd__alpha=alpha, dkd__beta=beta)
        require_positive(dkd__temperature=temperature)
        if warmup_epochs < 0:
            raise ValueError(f"dkd.warmup_epochs: must be at least 0, found {warmup_epochs}")
        self._weights, self._temperature, self._warmup = (alpha, beta), temperature, warmup_epochs

    def losses(self, student: torch.Tensor, teacher: torch.Tensor, labels: Labels) -> tuple[torch.Tensor, ...]:
        if isinstance(labels, MixedLabels):
            raise ValueError("dkd: is not defined for images of two classes, which mixup and cutmix make")
        return dkd_losses(student, teacher, labels, self._temperature)

    def weights(self, epoch: int) -> tuple[float, ...]:
        share = min(epoch / self._warmup, 1.0) if self._warmup else 1.0
        return tuple(share * weight for weight in self._weights)
