"""Whether a difference between two errors is more than noise."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from scipy import special

LEVEL = 0.05
EXPLANATION = (
    "≈ marks a difference within noise. With several seeds, that is a two-sided t-test with p ≥ 0.05, paired by seed, "
    "or of one sample if the other side is a single value; with one seed, a 95 % binomial interval over the validation "
    "images."
)


@dataclass(frozen=True)
class Comparison:
    """`difference` is ours minus theirs, in per cent of the images."""

    difference: float
    within_noise: bool
    p_value: float

    def __str__(self) -> str:
        return f"{signed(self.difference)}{' ≈' if self.within_noise else ''}"


def signed(difference: float) -> str:
    """Two decimals with a sign, unless that would be the sign of zero."""
    sign = "−" if difference <= -0.005 else "+" if difference >= 0.005 else ""
    return f"{sign}{abs(difference):.2f}"


def compare(ours: Mapping[str, float], theirs: Mapping[str, float] | float, images: int) -> Comparison:
    """Compares per-cent errors by seed with others on as many images, or with a published number, taken as exact."""
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


def _binomial_test(ours: float, theirs: float, images: int, fixed: bool) -> float:
    """Two-sided p-value for two error rates (0..1) being equal, by the normal approximation to the binomial.

    It ignores that both networks saw the same images, which makes real differences smaller than it assumes.
    """
    variance = theirs * (1 - theirs) / images if fixed else (ours * (1 - ours) + theirs * (1 - theirs)) / images
    if variance <= 0:
        return 1.0 if math.isclose(ours, theirs) else 0.0
    return math.erfc(abs(ours - theirs) / math.sqrt(2 * variance))
