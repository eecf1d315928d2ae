"""The cross-entropy with the labels, in which classes with few images may count as much and labels may be smoothed."""

import torch
from torch.nn.functional import cross_entropy

from moonshine.data.labels import Labels, MixedLabels


def balanced_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights with which each class counts as much as any other: images / (classes * images of the class).

    `labels` is int64 (images,), with at least one image of each class; the weights are float32 (classes,) and 1 on
    average over the images.
    """
    counts = torch.bincount(labels, minlength=classes).double()
    return (len(labels) / (classes * counts)).float()


def weighted_cross_entropy(
    logits: torch.Tensor, labels: Labels, weights: torch.Tensor | None, smoothing: float = 0.0
) -> torch.Tensor:
    """Mean over the batch of each image's cross-entropy, weighted if there are weights of classes.

    `logits` is (batch, classes), `labels` (batch,), `weights` (classes,). The target is 1 - smoothing for the label
    plus smoothing / classes for each class, and each class's term is multiplied by its weight, as PyTorch's
    cross_entropy does. But the sum is divided by the number of images, not by the sum of their weights: a batch's value
    must be the mean of its shares' values.

    For mixed images, it is the sum of the values for both labels, multiplied by the images' shares.
    """
    if isinstance(labels, MixedLabels):
        both = (labels.own, labels.partner)
        own, partner = (weighted_cross_entropy(logits, classes, weights, smoothing) for classes in both)
        return labels.share * own + (1 - labels.share) * partner
    if weights is None:
        return cross_entropy(logits.float(), labels, label_smoothing=smoothing)
    return cross_entropy(logits.float(), labels, weights, reduction="none", label_smoothing=smoothing).mean()
