"""Knowledge distillation: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.

With logits s of the student and t of the teacher, shape (batch, classes), and temperature T:

    p = softmax(t / T),  q = softmax(s / T)
    L = T^2 * mean over batch of KL(p || q) = T^2 * mean over batch of (sum over classes of p * log(p / q))

A sum over classes, not a mean (PyTorch's `batchmean`). T^2 keeps the size of the gradient as T grows. The student
minimises alpha * L + (1 - alpha) * cross-entropy with the labels, unless the cross-entropy is given another weight.
"""

import math

import torch
from torch.nn.functional import kl_div, log_softmax

from moonshine.data.labels import Labels
from moonshine.distillation.terms import require_positive


def kd_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """L from the logits of student and teacher, (batch, classes) each; a scalar."""
    of_student, of_teacher = (log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return temperature**2 * kl_div(of_student, of_teacher, reduction="batchmean", log_target=True)


class KDTerm:
    """alpha * L. Raises ValueError for a number out of range."""

    parts: tuple[str, ...] = ("kd",)

    def __init__(self, alpha: float, temperature: float):
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha: must be at least 0, found {alpha}")
        require_positive(temperature=temperature)
        self.alpha, self.temperature = alpha, temperature

    def losses(self, student: torch.Tensor, teacher: torch.Tensor, labels: Labels) -> tuple[torch.Tensor, ...]:
        return (kd_loss(student, teacher, self.temperature),)

    def weights(self, epoch: int) -> tuple[float, ...]:
        return (self.alpha,)
