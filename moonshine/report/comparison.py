"""Whether a difference between two errors is more than noise."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from scipy import special

LEVEL = 0.05
OF_SEEDS = "a two-sided t-test, paired by seed, or of one sample if the other side is a single value"
OF_IMAGES = "McNemar's exact test on the images that only one of two networks gets wrong"
OF_ERRORS = "a binomial test that ignores that both networks saw the same images"
OF_PUBLISHED = "; against a published value, it is a binomial test"


@dataclass(frozen=True)
class Comparison:
    """`difference` is ours minus theirs, in per cent of the images."""

    difference: float
    within_noise: bool
    p_value: float

    def __str__(self) -> str:
        return f"{signed(self.difference)}{' ≈' if self.within_noise else ''}"


def noise_in_words(seeds: int, is_image_by_image: bool, has_published: bool) -> str:
    """What the sign for noise means on a page."""
    of_one = OF_IMAGES if is_image_by_image else OF_ERRORS
    test = OF_SEEDS if seeds > 1 else f"{of_one}{OF_PUBLISHED if has_published else ''}"
    return f"≈ marks a difference within noise (p ≥ {LEVEL:g}). The test is {test}."


def signed(difference: float) -> str:
    """Two decimals with a sign, unless that would be the sign of zero."""
    sign = "−" if difference <= -0.005 else "+" if difference >= 0.005 else ""
    return f"{sign}{abs(difference):.2f}"


def compare(
    ours: Mapping[str, float],
    theirs: Mapping[str, float] | float,
    images: int,
    only_one_wrong: tuple[int, int] | None = None,
) -> Comparison:
    """Compares per-cent errors by seed with others on as many images, or with a published number, taken as exact.

    `only_one_wrong` is on how many images only the one network of ours is wrong, and only the one of theirs, if known.
    """
    if not isinstance(theirs, Mapping):
        differences = [ours[seed] - theirs for seed in ours]
        fixed = True
    elif shared := [seed for seed in ours if seed in theirs]:
        differences = [ours[seed] - theirs[seed] for seed in shared]
        fixed = False
    else:
        other = statistics.mean(theirs.values())
        differences = [ours[seed] - other for seed in ours]
        fixed = False
    mean = statistics.mean(differences)
    if len(differences) > 1:
        p_value = _t_test(differences)
    elif only_one_wrong:
        p_value = _mcnemar_test(*only_one_wrong)
    else:
        ours_mean = statistics.mean(ours.values())
        p_value = _binomial_test(ours_mean / 100, (ours_mean - mean) / 100, images, fixed)
    return Comparison(mean, p_value >= LEVEL, p_value)


def _t_test(differences: list[float]) -> float:
    """Two-sided p-value for a mean difference of zero."""
    deviation = statistics.stdev(differences)
    if deviation < 1e-9:  # the same difference with every seed
        return 1.0 if abs(statistics.mean(differences)) < 1e-9 else 0.0
    degrees = len(differences) - 1
    t = statistics.mean(differences) / (deviation / math.sqrt(len(differences)))
    return float(2 * special.stdtr(degrees, -abs(t)))


def _mcnemar_test(only_ours: int, only_theirs: int) -> float:
    """Two-sided p-value for two networks being wrong equally often, by the images that only one of them gets wrong.

    The exact form of McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 1947: each of these images is a fair coin.
    """
    fewer, both = min(only_ours, only_theirs), only_ours + only_theirs
    return min(1.0, float(2 * special.bdtr(fewer, both, 0.5)))


def _binomial_test(ours: float, theirs: float, images: int, fixed: bool) -> float:
    """Two-sided p-value for two error rates (0..1) being equal, by the normal approximation to the binomial.

    It ignores that both networks saw the same images, which makes real differences smaller than it assumes.
    """
    variance = theirs * (1 - theirs) / images if fixed else (ours * (1 - ours) + theirs * (1 - theirs)) / images
    if variance <= 0:
        return 1.0 if math.isclose(ours, theirs) else 0.0
    return math.erfc(abs(ours - theirs) / math.sqrt(2 * variance))
