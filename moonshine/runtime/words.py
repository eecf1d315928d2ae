"""Numbers in sentences."""


def counted(count: int, noun: str) -> str:
    """`1 epoch`, `2 epochs`: for nouns whose plural ends in s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
