"""The likely right word for a mistyped one."""

import difflib
from collections.abc import Iterable


def suggest(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)`, or the known words where none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f' (did you mean "{close[0]}"?)' if close else f" (known: {', '.join(known)})" if known else ""
