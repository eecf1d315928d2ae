"""The learning rate as a pure function of the epoch."""

from moonshine.params.schema import Recipe


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Learning rate of an epoch, counted from 1: multiplied by lr_factor after each epoch in lr_steps."""
    return recipe.lr * recipe.lr_factor ** sum(step < epoch for step in recipe.lr_steps)
