"""Texts of params.yaml in Markdown."""

import re


def escape(text: str) -> str:
    """The text as it is, in a table of a Markdown page."""
    return re.sub(r"([|$*`<\[\\]|\b_|_\b)", r"\\\1", text)
