"""Logit standardisation: Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024.

A step before any loss that compares logits, applied to both networks. For the logits z of one image, (classes,):

    z  <-  (z - mean(z)) / (std(z) + 1e-7)        mean and unbiased standard deviation over the classes

The student then learns the order and the relative distances of the teacher's logits, but neither their mean nor their
scale. The gradient with respect to the logits is divided by std(z). If all logits of an image are equal, as at the
first step of a network whose classifier begins at zero, that factor is 1e7: the paper's formula has no other bound.
With two classes, standardised logits are always +-0.71, and nothing but their order is left to learn.
"""

import torch

EPSILON = 1e-7


def standardise_logits(logits: torch.Tensor) -> torch.Tensor:
    """The logits, (batch, classes) with at least two classes, each image's with mean 0 and standard deviation 1."""
    return (logits - logits.mean(dim=1, keepdim=True)) / (logits.std(dim=1, keepdim=True) + EPSILON)
