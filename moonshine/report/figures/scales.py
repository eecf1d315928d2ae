"""Axes whose pixels are known before anything is drawn, so that names can be placed next to points."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

MOST_TICKS = 9
"""Labels on a logarithmic axis."""


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high` over `length` pixels, linear or logarithmic."""

    low: float
    high: float
    length: float
    logarithmic: bool = False

    @classmethod
    def fitted(
        cls, values: Iterable[float], length: float, margins: tuple[float, float], logarithmic: bool = False
    ) -> "Scale":
        """The axis on which the values leave these pixels free at its two ends. A log axis needs positive values."""
        known = list(values)
        low, high = (math.log10(each(known)) if logarithmic else float(each(known)) for each in (min, max))
        if high - low < 1e-9:
            half = math.log10(1.5) if logarithmic else max(0.05 * abs(low), 0.5)
            low, high = low - half, high + half
        per_pixel = (high - low) / (length - sum(margins))
        low, high = low - margins[0] * per_pixel, high + margins[1] * per_pixel
        return cls(10**low, 10**high, length, True) if logarithmic else cls(low, high, length)

    @property
    def domain(self) -> list[float]:
        return [self.low, self.high]

    def pixel(self, value: float) -> float:
        """Distance in pixels from the `low` end."""
        low, high, at = (math.log10(each) if self.logarithmic else each for each in (self.low, self.high, value))
        return self.length * (at - low) / (high - low)

    def value(self, pixel: float) -> float:
        """The value at this distance from the `low` end."""
        if self.logarithmic:
            return float(self.low * (self.high / self.low) ** (pixel / self.length))
        return self.low + (self.high - self.low) * pixel / self.length

    def ticks(self, fewest: int = 3) -> list[float]:
        """Round values for the labels of a logarithmic axis: `fewest` or a few more."""
        for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
            ticks = [tick for tick in ticks if self.low <= tick <= self.high]
            if len(ticks) >= fewest:
                return ticks[:: -(-len(ticks) // MOST_TICKS)]
        return self._linear_ticks(fewest)

    def _linear_ticks(self, fewest: int) -> list[float]:
        largest = math.floor(math.log10((self.high - self.low) / fewest)) + 1
        for decade in (largest, largest - 1):
            for digit in (5, 2, 1):
                step = digit * 10.0**decade
                first, last = math.ceil(self.low / step), math.floor(self.high / step)
                if last - first + 1 >= fewest:
                    return [float(f"{number * step:.9g}") for number in range(first, last + 1)]
        return []
