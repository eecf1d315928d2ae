"""The documents are true where a machine can tell: links lead somewhere, the README's table is the committed one."""

import re
from pathlib import Path

import pytest

from support import ROOT, run

DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "results").rglob("README.md")])


def tables(text: str) -> list[str]:
    """The Markdown tables of a text, each as its lines."""
    return re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    local = [link for link in links if "://" not in link]
    assert not [link for link in local if not (document.parent / link).exists()]


def test_the_readme_shows_the_committed_table() -> None:
    """The one in git: `make demo` on another kind of processor has written over the working copy."""
    first = tables((ROOT / "README.md").read_text())[0]
    assert first.strip() in run("git", "show", "HEAD:results/digits/README.md", cwd=ROOT).stdout


def test_every_exit_code_is_documented() -> None:
    from moonshine import errors

    documented = (ROOT / "docs/errors.md").read_text()
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert not [code for code in codes if not re.search(rf"^\| *{code}\b", documented, re.MULTILINE)]
