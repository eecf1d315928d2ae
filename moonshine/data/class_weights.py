"""Weights of classes in the cross-entropy with the labels, so that classes with few images may count as much."""

import torch
from torch.nn.functional import cross_entropy


def balanced_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights with which each class counts as much as any other: images / (classes * images of the class).

    `labels` is int64 (images,), with at least one image of each class; the weights are float32 (classes,) and 1 on
    average over the images.
    """
    counts = torch.bincount(labels, minlength=classes).double()
    return (len(labels) / (classes * counts)).float()


def weighted_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Mean over the batch of each image's cross-entropy, multiplied by the weight of its class if there are weights.

    `logits` is (batch, classes), `labels` (batch,), `weights` (classes,). The sum is divided by the number of images,
    not by the sum of their weights as PyTorch does: a batch's value must be the mean of its shares' values.
    """
    if weights is None:
        return cross_entropy(logits.float(), labels)
    return (weights[labels] * cross_entropy(logits.float(), labels, reduction="none")).mean()
