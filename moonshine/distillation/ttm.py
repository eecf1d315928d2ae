"""TTM and WTTM: Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching", ICLR 2024.

With logits s of the student and t of the teacher, shape (batch, classes), and an exponent g:

    p = softmax(t),  U = sum over classes of p^g,  q = p^g / U = softmax(g * t)
    TTM   = mean over batch of KL(q || softmax(s))
    WTTM  = mean over batch of U * KL(q || softmax(s))

The exponent is a temperature of 1 / g on the teacher alone: none on the student, and no factor T^2. U, from 1 for a
certain teacher to classes^(1 - g) for an undecided one (g < 1), lets images on which the teacher is undecided count
more. The student minimises cross-entropy + weight * TTM or WTTM. The authors' examples on CIFAR-100 (zkxufo/TTM) have
g = 0.1 with weight 45 for TTM, and g = 0.2 with weight 4 for WTTM beside another loss.
"""

from typing import NotRequired, TypedDict

import torch
from torch.nn.functional import log_softmax

from moonshine.data.labels import Labels
from moonshine.distillation.terms import require_positive


class TtmSettings(TypedDict):
    """The keys of `ttm` in a method; TTM if `weighted` is left out."""

    weight: float
    exponent: float
    weighted: NotRequired[bool]


def ttm_loss(student: torch.Tensor, teacher: torch.Tensor, exponent: float, weighted: bool = False) -> torch.Tensor:
    """TTM, or WTTM if `weighted`, from the logits of student and teacher, (batch, classes) each; a scalar."""
    of_student, of_teacher = log_softmax(student, dim=1), log_softmax(exponent * teacher, dim=1)
    divergence = (of_teacher.exp() * (of_teacher - of_student)).sum(dim=1)
    if weighted:
        divergence = torch.logsumexp(exponent * log_softmax(teacher, dim=1), dim=1).exp() * divergence
    return divergence.mean()


class TtmTerm:
    """weight * TTM or WTTM. Raises ValueError for a number out of range."""

    parts: tuple[str, ...] = ("ttm",)

    def __init__(self, weight: float, exponent: float, weighted: bool = False):
        require_positive(ttm__weight=weight, ttm__exponent=exponent)
        self._weights, self._exponent, self._weighted = (weight,), exponent, weighted

    def losses(self, student: torch.Tensor, teacher: torch.Tensor, labels: Labels) -> tuple[torch.Tensor, ...]:
        return (ttm_loss(student, teacher, self._exponent, self._weighted),)

    def weights(self, epoch: int) -> tuple[float, ...]:
        return self._weights
