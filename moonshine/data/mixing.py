"""Batches in which each image is mixed with another: mixup and cutmix.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", arXiv 1710.09412, and Yun et al., "CutMix: Regularization
Strategy to Train Strong Classifiers with Localizable Features", arXiv 1905.04899, both as in torchvision's MixUp and
CutMix: the partner of an image is the one before it in the batch of all processes, and of the first the last. The order
of an epoch is random, so the partner is too. One share is drawn per batch; it depends on (seed, epoch, step) alone.
"""

import math

import torch

from moonshine.data.labels import MixedLabels
from moonshine.data.order import generator
from moonshine.data.shares import share
from moonshine.params.schema import Augmentation


def share_with_partners(batch: torch.Tensor) -> torch.Tensor:
    """This process's share of a batch's indices, after the index of the first one's partner: one more than the share.

    Each image's partner then comes just before it, whatever the number of processes.
    """
    return torch.cat([share(batch.roll(1))[:1], share(batch)])


class Mixing:
    """Mixup or cutmix of an epoch's batches; if there are both, one of them for each batch, with equal probability."""

    def __init__(self, settings: Augmentation, seed: int, epoch: int):
        self._mixup, self._cutmix, self._position = settings.mixup, settings.cutmix, (seed, epoch)

    def __call__(self, step: int, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, MixedLabels]:
        """Mix each image of the epoch's batch `step` with the one before it; the first is only a partner.

        `images` is float (batch + 1, channels, height, width), `labels` int64 (batch + 1,); of the results, the first
        dimension is one less.
        """
        random = generator("mixing", *self._position, step)
        if self._mixup is None or (self._cutmix is not None and torch.rand((), generator=random) < 0.5):
            mixed, own_share = _cut_mixed(images, _draw_share(self._cutmix, random), random)
        else:
            own_share = _draw_share(self._mixup, random)
            mixed = (images[:-1] * (1 - own_share)).add_(images[1:] * own_share)
        return mixed, MixedLabels(labels[1:], labels[:-1], own_share)


def _draw_share(alpha: float | None, random: torch.Generator) -> float:
    """From Beta(alpha, alpha), as torch.distributions draws it, which takes no generator."""
    assert alpha is not None
    return float(torch._sample_dirichlet(torch.tensor([alpha, alpha]), generator=random)[0])


def _cut_mixed(images: torch.Tensor, own_share: float, random: torch.Generator) -> tuple[torch.Tensor, float]:
    """Images with a box of their partners', whose area is 1 - `own_share` if it is inside; the share that is left."""
    height, width = images.shape[2:]
    column, row = (int(torch.randint(length, (), generator=random)) for length in (width, height))
    half = 0.5 * math.sqrt(1 - own_share)
    down, across = int(half * height), int(half * width)
    rows = slice(max(row - down, 0), min(row + down, height))
    columns = slice(max(column - across, 0), min(column + across, width))
    mixed = images[1:].clone()
    mixed[..., rows, columns] = images[:-1, :, rows, columns]
    return mixed, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
