"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017), as its authors coded it.

For the features x of one group, shape (batch, channels, height, width):

    Q(x) = normalise(flatten(mean over channels of x^2)),  L2 norm per sample
    L    = mean over batch and positions of (Q(student) - Q(teacher))^2

The mean over positions makes L smaller by their number than the paper's sum; beta is chosen for the mean. Maps are
computed in float32 whatever the precision of the features, since x^2 overflows in half precision.
"""

import torch
from torch.nn.functional import mse_loss, normalize


def attention_map(features: torch.Tensor) -> torch.Tensor:
    """Q(x): float32, shape (batch, height * width), each row of L2 norm 1."""
    with torch.autocast(features.device.type, enabled=False):
        return normalize(features.float().square().mean(dim=1).flatten(start_dim=1))


def attention_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """L of one group from two attention maps of shape (batch, positions); a scalar."""
    return mse_loss(student, teacher)
