"""Attention transfer: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017.

For the features x of one group, shape (batch, channels, height, width), the attention map is

    A(x) = mean over channels of x^2                                  (batch, height, width)
    Q(x) = flatten(A(x)) / ||flatten(A(x))||_2, per image             (batch, height * width)

and the loss of the group, from the maps of student and teacher, is one of

    mean-square   mean over batch and positions of (Q_s - Q_t)^2      as the authors coded it
    norm          mean over batch of ||Q_s - Q_t||_2                  Eq. 2 of Crowley et al., arXiv 1711.02613

The mean over positions makes the first smaller than a sum by a factor of their number; beta is chosen for the mean.
If the maps differ in size, the larger is averaged down to the smaller (adaptive average pooling) before normalising.
Maps are computed in float32 whatever the precision of the features, since x^2 overflows in half precision.
"""

from typing import Any

import torch
from torch.linalg import vector_norm
from torch.nn.functional import adaptive_avg_pool2d, mse_loss, normalize

FORMS = MEAN_SQUARE, NORM = "mean-square", "norm"


def attention_map(features: torch.Tensor) -> torch.Tensor:
    """A(x) of features of shape (batch, channels, height, width): float32, shape (batch, height, width)."""
    if features.dim() != 4:
        raise ValueError(f"features of shape {tuple(features.shape)}: attention needs (batch, channels, height, width)")
    with torch.autocast(features.device.type, enabled=False):
        return _MeanOfSquares.apply(features.float())


class _MeanOfSquares(torch.autograd.Function):
    """Over the channels; its backward pass goes through the features once, autograd's would four times."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(features)
        return features.square().mean(dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (features,) = ctx.saved_tensors
        return (gradient / features.shape[1] * 2).unsqueeze(1) * features


def attention_loss(student: torch.Tensor, teacher: torch.Tensor, form: str = MEAN_SQUARE) -> torch.Tensor:
    """The loss of one group from two attention maps A, (batch, height, width) each; a scalar."""
    size = min(student.shape[1], teacher.shape[1]), min(student.shape[2], teacher.shape[2])
    of_student, of_teacher = (normalize(_pooled(map_, size).flatten(1)) for map_ in (student, teacher))
    if form == MEAN_SQUARE:
        return mse_loss(of_student, of_teacher)
    return vector_norm(of_student - of_teacher, dim=1).mean()


def _pooled(map_: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return map_ if map_.shape[1:] == size else adaptive_avg_pool2d(map_, size)
