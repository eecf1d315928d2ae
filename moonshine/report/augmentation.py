"""How training images are changed, in words; crops, padding and flips are in the list of settings."""

from collections.abc import Iterator

from moonshine.params.schema import Augmentation
from moonshine.runtime.words import enumerated


def augmentation_in_words(settings: Augmentation) -> Iterator[str]:
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


def difference_in_words(settings: Augmentation, usual: Augmentation) -> str:
    """What a row with augmentation of its own has instead of the experiment's."""
    own, others = (enumerated([*augmentation_in_words(one)]) for one in (settings, usual))
    if own == others:
        return "other augmentation"
    return f"other augmentation, with {own}" if own else f"other augmentation, without {others}"
