"""The likely right word for a mistyped one."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)`, or nothing if none is close."""
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


def suggest(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)`, or the known words if none is close."""
    known = sorted(known)
    return nearest(word, known) or (f" (known: {', '.join(known)})" if known else "")


def suggest_path(path: str, paths: Iterable[str]) -> str:
    """The same for modules of a network; if none is close, only the top-level ones, because all would be too many."""
    paths = set(paths)
    return nearest(path, paths) or suggest(path, {each for each in paths if "." not in each})
