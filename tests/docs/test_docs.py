"""The documents are true where a machine can tell: links lead somewhere, the README's table is the committed one."""

import re
from pathlib import Path

import pytest

from benchmarks.separate_project import ROOT
from docs.make_parameters import page
from moonshine.params import schema
from tests.support.project import run

DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "results").rglob("README.md")])


def markdown_tables(text: str) -> list[str]:
    """The Markdown tables of a text, each as its lines."""
    return re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    local = [link for link in links if "://" not in link]
    assert not [link for link in local if not (document.parent / link).exists()]


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a Markdown text: letters, digits, - and _ in lower case, blanks as hyphens."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.*?) *#*$", prose, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found[slug] = found.get(slug, 0) + 1
    return {f"{slug}-{again}" if again else slug for slug, count in found.items() for again in range(count)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_into_a_page_name_a_heading_of_it(document: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]*)#([^)]+)\)", document.read_text()) if "://" not in link[0]]
    pages = [document.parent / path if path else document for path, _ in links]
    assert not [link for page, link in zip(pages, links) if link[1] not in anchors(page.read_text())]


def test_headings_are_named_as_by_github() -> None:
    text = "# What `x_y` costs: 2 % (a [link](z.md))\n```\n# no heading\n```\n## Twice\n## Twice\n"
    assert anchors(text) == {"what-x_y-costs-2--a-link", "twice", "twice-1"}


def test_the_readme_shows_the_committed_table() -> None:
    """The one in git: `make demo` on another kind of processor has written over the working copy."""
    first = markdown_tables((ROOT / "README.md").read_text())[0]
    assert first.strip() in run("git", "show", "HEAD:results/digits/README.md", cwd=ROOT).stdout


def test_the_parameters_are_documented_as_the_schema_has_them() -> None:
    text = (ROOT / "docs/parameters.md").read_text()
    assert page(text) == text, "run `make docs`"
    sections = {
        name for name, kind in vars(schema).items() if isinstance(kind, type) and issubclass(kind, schema.Section)
    }
    assert set(re.findall(r"<!-- (\w+): begin -->", text)) == sections - {"Section"}


def test_an_edited_table_of_parameters_is_written_again() -> None:
    text = (ROOT / "docs/parameters.md").read_text()
    assert page(text.replace("Random horizontal flip (p = 0.5).", "Mirror every other image.")) == text


def test_every_exit_code_is_documented() -> None:
    from moonshine import errors

    documented = (ROOT / "docs/errors.md").read_text()
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert not [code for code in codes if not re.search(rf"^\| *{code}\b", documented, re.MULTILINE)]
