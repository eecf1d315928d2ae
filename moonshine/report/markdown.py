"""Texts of params.yaml in Markdown: titles verbatim, captions as one paragraph of inline Markdown."""

import re

BLOCK_START = re.compile(r"#{1,6}(?!\S)|[>|]|[+*-](?!\S)|(?:[*_-] ?){3,}$|[`~]{3}|\d+[.)](?!\S)|\[[^\]]*\]:")
"""What makes the beginning of a paragraph a heading, list, quotation, fence, rule or link definition."""
TAG = re.compile(r"<(?=[A-Za-z/!?])")
OTHER_LINK = re.compile(r"\]\((?!https?://|[\w./#-]*\))")
"""The target of a link that is neither a web address nor a plain relative path."""


def escape(text: str) -> str:
    """The text verbatim, for a table or a heading of a Markdown page."""
    line = " ".join(text.splitlines())
    return re.sub(r"([|$*`<\[\\~#&]|\b_|_\b)", r"\\\1", line)


def prose(text: str) -> str:
    """A caption as a paragraph: emphasis, code and links stay Markdown; HTML, headings and other blocks become text."""
    paragraph = OTHER_LINK.sub(r"]\\(", TAG.sub("&lt;", " ".join(text.split())))
    if opening := BLOCK_START.match(paragraph):
        number = len(opening[0]) - 1 if paragraph[0].isdigit() else 0  # digits cannot be escaped, but what follows can
        return f"{paragraph[:number]}\\{paragraph[number:]}"
    return paragraph
