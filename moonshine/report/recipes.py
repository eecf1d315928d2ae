"""Recipes in words."""

from collections.abc import Iterator

from moonshine.params import Recipe
from moonshine.params.schema import Augmentation
from moonshine.runtime.words import counted, enumerated

OF_SCHEDULE = ("schedule", "lr_steps", "lr_factor", "lr_min", "warmup_epochs")
"""Keys of a recipe that together say how the learning rate changes."""


def further_in_words(recipe: Recipe) -> str:
    """A sentence on augmentation, and on those keys of the recipe that may be left out and are not; else nothing."""
    off = {"optimizer": "sgd", "label_smoothing": 0, "ema_decay": 0, "zero_init_residual": False}
    words = [*_augmentation(recipe.augmentation)]
    words += [text for key, text in _optional(recipe).items() if getattr(recipe, key) not in (None, off.get(key))]
    return f" Training uses {enumerated(words)}." if words else ""


def differences_in_words(recipe: Recipe, usual: Recipe) -> str:
    """In what a row's recipe differs from the experiment's, in words."""
    schedule = ""
    if any(getattr(recipe, key) != getattr(usual, key) for key in OF_SCHEDULE):
        changes = changes_of_rate(recipe)
        schedule = f"learning rate {recipe.lr:g}, {changes}" if changes else f"constant learning rate {recipe.lr:g}"
    words = {
        "epochs": counted(recipe.epochs, "epoch"),
        "images": images_in_words(recipe),
        "class_weights": "classes of equal weight" if recipe.class_weights else "images of equal weight",
        "batch_size": f"batch size {recipe.batch_size}",
        "lr": schedule or f"learning rate {recipe.lr:g}",
        **dict.fromkeys(OF_SCHEDULE, schedule),
        "momentum": f"momentum {recipe.momentum:g}",
        "weight_decay": f"weight decay {recipe.weight_decay:g}",
        "augmentation": _other_augmentation(recipe.augmentation, usual.augmentation),
        "precision": f"in {recipe.precision}",
        "compile": "compiled" if recipe.compile else "not compiled",
        **_optional(recipe),
    }
    differing = [text for key, text in words.items() if getattr(recipe, key) != getattr(usual, key)]
    return ", ".join(dict.fromkeys(differing))


def images_in_words(recipe: Recipe) -> str:
    return f"{recipe.images:,} training images" if recipe.images else "all training images"


def changes_of_rate(recipe: Recipe) -> str:
    """How the learning rate changes; empty if it does not."""
    lowest = f"{recipe.lr_min or 0:g}"
    after = "epoch" if len(recipe.lr_steps) == 1 else "epochs"
    steps = f"multiplied by {recipe.lr_factor:g} after {after} {', '.join(map(str, recipe.lr_steps))}"
    falls = {"cosine": f"lowered to {lowest} along a cosine", "linear": f"lowered linearly to {lowest}"}
    fall = falls.get(recipe.schedule or "steps", steps if recipe.lr_steps else "")
    rises = f"reached in {counted(recipe.warmup_epochs, 'epoch')} of linear warm-up" if recipe.warmup_epochs else ""
    return " and ".join(filter(None, (rises, fall)))


def _optional(recipe: Recipe) -> dict[str, str]:
    """Key of the recipe that may be left out -> what it does, in words."""
    norms = recipe.weight_decay if recipe.norm_weight_decay is None else recipe.norm_weight_decay
    smoothing, average = recipe.label_smoothing or 0, recipe.ema_decay or 0
    averaged = f"a moving average of the weights (decay {average:g}), which is evaluated"
    return {
        "optimizer": {"nesterov": "Nesterov momentum", "adamw": "AdamW"}.get(recipe.optimizer or "sgd", "SGD"),
        "norm_weight_decay": f"weight decay {norms:g} on normalisation layers",
        "clip_grad_norm": f"gradients clipped to norm {recipe.clip_grad_norm or 0:g}",
        "label_smoothing": f"label smoothing {smoothing:g}" if smoothing else "no label smoothing",
        "zero_init_residual": f"{'' if recipe.zero_init_residual else 'no '}zero-initialised residual blocks",
        "ema_decay": averaged if average else "no average of the weights",
    }


def _augmentation(settings: Augmentation) -> Iterator[str]:
    """Such as "TrivialAugment", "cutout of 8 pixels", "mixup (alpha 0.2) or cutmix (alpha 1)"."""
    if settings.crop_size:
        yield f"crops of {settings.crop_size} pixels"
    if settings.trivial_augment:
        yield "TrivialAugment"
    if settings.cutout:
        yield f"cutout of {settings.cutout} pixels"
    if settings.random_erasing:
        yield f"random erasing (p = {settings.random_erasing:g})"
    mixing = {"mixup": settings.mixup, "cutmix": settings.cutmix}
    if chosen := [f"{name} (alpha {alpha:g})" for name, alpha in mixing.items() if alpha is not None]:
        yield " or ".join(chosen)


def _other_augmentation(settings: Augmentation, usual: Augmentation) -> str:
    """What a row with augmentation of its own has instead of the experiment's."""
    own, others = (enumerated([*_augmentation(one)]) for one in (settings, usual))
    if own == others:
        return "other augmentation"
    return f"other augmentation, with {own}" if own else f"other augmentation, without {others}"
