"""Names in figures: how wide they are, how they are wrapped, and where they hide nothing."""

import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from matplotlib.font_manager import findfont, get_font

FONT = "DejaVu Sans"
"""Comes with matplotlib, so that every machine has it; wider than what browsers use instead."""
FONT_SIZE = 11
LINE_HEIGHT = 14
"""Pixels."""
GAP = 4
"""Pixels between a point's mark and its name."""


class Box(NamedTuple):
    """Pixels from the lower left corner of the plot."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> "Box":
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def meets(self, other: "Box") -> bool:
        across = min(self.right, other.right) - max(self.left, other.left)
        return across > 0 and min(self.top, other.top) - max(self.bottom, other.bottom) > 0

    def distance(self, other: "Box") -> float:
        across = max(self.left - other.right, other.left - self.right, 0.0)
        return math.hypot(across, max(self.bottom - other.top, other.bottom - self.top, 0.0))

    def is_within(self, other: "Box") -> bool:
        at_least = self.left >= other.left and self.bottom >= other.bottom
        return at_least and self.right <= other.right and self.top <= other.top


@cache
def font() -> Any:
    return get_font(findfont(FONT))


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """Width in pixels."""
    shapes = font()
    shapes.set_size(size, 72)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing characters; rendering.py reports them
        shapes.set_text(text)
    return float(shapes.get_width_height()[0] / 64)


def lacking(text: str) -> set[str]:
    """The characters for which the font has no glyph."""
    return {character for character in text if character.isprintable() and not font().get_char_index(ord(character))}


def wrapped(text: str, width: float, size: float = FONT_SIZE) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words and, if they are longer, within."""
    most = max(int(width / text_width("n", size)), 1)
    for letters in range(2 * most, 0, -1):
        lines = textwrap.wrap(text, letters)
        if all(text_width(line, size) <= width for line in lines):
            return lines
    return [text]


def places(
    marks: Mapping[str, Sequence[Box]], names: Sequence[str], width: float, height: float
) -> dict[str, tuple[float, float]]:
    """Name -> the best position of its centre in a plot of this size, in pixels from the lower left corner.

    `marks` are what is drawn for each name; the names are placed in their order. A name is left out if everywhere it
    would cover another name, a mark or an axis, or be nearer to other marks than to its own.
    """
    plot = Box(2, 2, width, height)
    taken = [box for boxes in marks.values() for box in boxes]
    found: dict[str, tuple[float, float]] = {}
    for name in names:
        for x, y in _beside(marks[name], text_width(name)):
            box = Box.around(x, y, text_width(name), LINE_HEIGHT)
            near = min(box.distance(own) for own in marks[name])
            others = (box.distance(other) for each in marks if each != name for other in marks[each])
            free = box.is_within(plot) and not any(box.meets(other) for other in taken)
            if free and all(distance > near for distance in others):
                found[name] = (x, y)
                taken.append(box)
                break
    return found


def _beside(boxes: Sequence[Box], width: float) -> list[tuple[float, float]]:
    """Centres of a name to try, the best first: below and above all marks, then to the sides of each."""
    low, high = min(box.bottom for box in boxes), max(box.top for box in boxes)
    left, right = min(box.left for box in boxes), max(box.right for box in boxes)
    middle, half = (left + right) / 2, width / 2
    across, up = half + GAP, LINE_HEIGHT / 2 + GAP / 2
    ends = [(middle + shift, y) for shift in (0, -half, half) for y in (low - up, high + up)]
    heights = sorted((box.bottom + box.top) / 2 for box in boxes)
    sides = [(x, y + by) for by in (0, -8, 8) for y in heights for x in (right + across, left - across)]
    return ends + sides
