"""Boxes of an image that are erased: cutout and random erasing.

A box is (top, left, bottom, right), int64; bottom and right are exclusive, and parts outside the image have no effect.
Erased pixels of a normalised image become 0, the mean of the normalisation, as in the code of both sources.
"""

import math

import torch

AREAS = (0.02, 0.33)
"""Smallest and largest share of the image that random erasing takes; these and what follows are torchvision's."""
LOG_RATIOS = (math.log(0.3), math.log(3.3))
"""Of height to width."""
ATTEMPTS = 10


def cutout_boxes(side: int, size: int, count: int, random: torch.Generator) -> torch.Tensor:
    """For each of `count` images of size x size pixels, a square around any of its pixels: (count, 4).

    DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", arXiv 1708.04552. As there,
    a square near the border is partly outside, so that less is erased.
    """
    start = torch.randint(size, (count, 2), generator=random) - side // 2
    return torch.cat([start, start + side], dim=1)


def random_erasing_boxes(probability: float, size: int, count: int, random: torch.Generator) -> torch.Tensor:
    """For each of `count` images of size x size pixels, a rectangle with this probability or an empty box: (count, 4).

    Zhong et al., "Random Erasing Data Augmentation", arXiv 1708.04896, as torchvision's RandomErasing draws it: area
    and log ratio are uniform, and drawn again if the rectangle is not smaller than the image, at most ten times in all.
    """
    boxes = torch.zeros((count, 4), dtype=torch.int64)
    waiting = (torch.rand(count, generator=random) < probability).nonzero()[:, 0]
    for _ in range(ATTEMPTS):
        draws = torch.rand((len(waiting), 4), generator=random, dtype=torch.float64)
        areas = size**2 * (AREAS[0] + draws[:, 0] * (AREAS[1] - AREAS[0]))
        ratios = (LOG_RATIOS[0] + draws[:, 1] * (LOG_RATIOS[1] - LOG_RATIOS[0])).exp()
        shapes = torch.stack([areas * ratios, areas / ratios], dim=1).sqrt().round()
        start = (draws[:, 2:] * (size - shapes + 1)).long()
        fits = (shapes < size).all(dim=1)
        boxes[waiting[fits]] = torch.cat([start, start + shapes.long()], dim=1)[fits]
        waiting = waiting[~fits]
    return boxes


def erase(images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Normalised `images` (batch, channels, height, width) with 0 in their boxes (batch, 4), in place."""
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    rows, columns = (torch.arange(length, device=images.device) for length in images.shape[2:])
    inside = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]
    return images.masked_fill_(inside[:, None], 0)
