"""Texts of params.yaml in Markdown."""

import re


def escape(text: str) -> str:
    """The text as it is, in a table or a heading of a Markdown page."""
    line = " ".join(text.splitlines())
    return re.sub(r"([|$*`<\[\\~#&]|\b_|_\b)", r"\\\1", line)
