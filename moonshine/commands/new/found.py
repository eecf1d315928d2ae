"""What was found in a folder of images, in words: the summary's lines, and what looks wrong."""

from collections.abc import Iterator, Sequence

from moonshine.commands.new.survey import Survey

LOPSIDED = 10
"""Ratio of the largest class to the smallest from which the user is told."""
FEW = 50
"""Training images of a class below which the user is told."""
FEW_TO_VALIDATE = 200
LONG = 2.0
"""Aspect ratio from which a central square leaves out half of an image."""


def what_was_found(survey: Survey) -> list[str]:
    train, val = survey.images("train"), survey.images("val")
    smallest, largest = _extremes(survey)
    formats = ", ".join(f"{count:,} {name}" for name, count in survey.formats.most_common())
    share = survey.layout.held_out
    held_out = "" if share is None else f"; {share:.0%} of each class are held out for validation"
    lines = [
        f"{survey.layout.kind}{held_out}",
        f"{len(survey.classes):,} classes: {_named(survey.classes)}",
        f"{train:,} training images, {_range(smallest, largest)} per class, and {val:,} validation images",
        f"shorter sides of {_sides(survey)}",
        f"{formats}; {_colours(survey)}",
    ]
    if survey.turned:
        lines.append(f"{survey.turned:,} of them stored turned, with an EXIF orientation")
    return lines


def _sides(survey: Survey) -> str:
    smallest, low, median, high, largest = (survey.shorter_side(quantile) for quantile in (0, 0.1, 0.5, 0.9, 1))
    if smallest == largest:
        return f"{median:,} pixels"
    return f"{smallest:,} to {largest:,} pixels, median {median:,}, four of five within {low:,} to {high:,}"


def _range(smallest: int, largest: int) -> str:
    return f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"


def what_looks_wrong(survey: Survey, size: int, evaluation: int) -> Iterator[str]:
    """A sentence for each; `size` is that of the squares, `evaluation` the shorter side that errors are measured at."""
    train, val = survey.layout.counts("train"), survey.images("val")
    smallest, largest = _extremes(survey)
    if largest >= LOPSIDED * smallest:
        names = [survey.classes[train.index(count)] for count in (largest, smallest)]
        yield (
            f"{names[0]} has {largest:,} training images and {names[1]} {smallest:,}: errors are means over images, so "
            "rare classes hardly count"
        )
    if few := [name for name, count in zip(survey.classes, train) if count < FEW]:
        yield (
            f"{_counted(few)} fewer than {FEW} training images: expect high errors, and attention transfer within "
            "noise; more images help most"
        )
    if val < FEW_TO_VALIDATE:
        yield f"{val} validation images: one of them is {100 / val:.1f} points of error"
    if (upscaled := float((survey.sides.min(axis=1) < evaluation).mean())) > 0.25:
        yield f"{upscaled:.0%} of the images have less than {evaluation} pixels and are enlarged: try a smaller --size"
    if survey.aspect_ratio(0.5) >= LONG:
        yield (
            f"half of the images are at least {survey.aspect_ratio(0.5):.1f} times as long as wide, and errors are "
            "measured on a central square: crop them first"
        )


def _extremes(survey: Survey) -> tuple[int, int]:
    counts = survey.layout.counts("train")
    return min(counts), max(counts)


def _named(names: Sequence[str], shown: int = 8) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def _counted(names: Sequence[str]) -> str:
    return f"{names[0]} has" if len(names) == 1 else f"{len(names)} classes have"


def _colours(survey: Survey) -> str:
    if not survey.grey:
        return "all in colour"
    return "all grey" if survey.is_grey else f"{survey.grey:,} of them grey"
