"""The learning rate as a pure function of the position in training."""

import math

from moonshine.params.schema import Recipe

WARMUP_START = 0.01
"""Share of the learning rate with which a warm-up begins: --lr-warmup-decay of torchvision's references."""


def steps_per_epoch(recipe: Recipe, images: int) -> int:
    """Batches of so many training images, the last of which may be smaller."""
    return -(-images // recipe.batch_size)


def learning_rate(recipe: Recipe, epoch: int, batch: int, steps_per_epoch: int) -> float:
    """Learning rate of the step on a batch, counted from 0, of an epoch, counted from 1.

    `steps` multiplies it by lr_factor after each epoch in lr_steps. `cosine` (Loshchilov and Hutter, "SGDR", ICLR 2017,
    equation 5, without restarts) and `linear` lower it from lr to lr_min at each step after the warm-up; the last step
    is one short of lr_min. In the warm-up, the learning rate rises linearly from WARMUP_START of its value.
    """
    step, warmup = (epoch - 1) * steps_per_epoch + batch, (recipe.warmup_epochs or 0) * steps_per_epoch
    if recipe.schedule in ("cosine", "linear"):
        done = max(step - warmup, 0) / (recipe.epochs * steps_per_epoch - warmup)
        left = (1 + math.cos(math.pi * done)) / 2 if recipe.schedule == "cosine" else 1 - done
        lowest = recipe.lr_min or 0.0
        rate = lowest + (recipe.lr - lowest) * left
    else:
        rate = recipe.lr * recipe.lr_factor ** sum(end < epoch for end in recipe.lr_steps)
    if step < warmup:
        rate *= WARMUP_START + (1 - WARMUP_START) * step / warmup
    return rate
