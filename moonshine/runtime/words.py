"""Numbers and lists in sentences."""

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """`1 epoch`, `2 epochs`: for nouns whose plural ends in s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def enumerated(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; empty for no words."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
