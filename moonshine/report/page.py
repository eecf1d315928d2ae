"""results/<experiment>/README.md: the page that a reviewer reads."""

from collections.abc import Iterable

from tabulate import tabulate

from moonshine.params import Params
from moonshine.params.schema import Table
from moonshine.report.attention import Attention
from moonshine.report.class_errors import CONFUSION_HEADINGS, CONFUSIONS_TITLE, TITLE, ClassErrors
from moonshine.report.figures.catalogue import CONFUSION, FIGURES, drawable
from moonshine.report.figures.measured import Measured
from moonshine.report.markdown import escape, prose
from moonshine.report.methods import TITLE as MINIMISED
from moonshine.report.methods import objectives
from moonshine.report.protocol import explanation, notice, protocol, sources
from moonshine.report.rows import ResultRow
from moonshine.report.searches import HEADINGS, TEXTS, caption
from moonshine.report.searches import TITLE as SEARCHES
from moonshine.report.tables import Cell, int8_notes, measured_notes, table_columns

INTERACTIVE = "[report.html](report.html) has the same with sortable tables and interactive figures, in one file."


def markdown_page(params: Params, rows: dict[str, ResultRow], measured: Measured, attention: Attention | None) -> str:
    """The page as Markdown."""
    blocks = [f"# Results: {params.experiment}", notice(params, rows), protocol(params, rows, escape), INTERACTIVE]
    for table in params.tables:
        blocks += _table(table, rows)
    if told := objectives(params):
        lines = [[escape(key), words] for key, words in told]
        blocks += [f"## {MINIMISED}", _aligned(lines, ["Method", "Objective"], texts=2)]
    blocks += ["## Reading the differences", explanation(params, rows, escape)]
    if measured.searches:
        found = [[*map(escape, search.line)] for search in measured.searches]
        blocks += [f"## {SEARCHES}", caption(measured.searches), _aligned(found, HEADINGS, TEXTS)]
    drawn = {name: _figure(name, measured) for name in drawable(measured)}
    of_classes = drawn.pop(CONFUSION, [])
    for figure in drawn.values():
        blocks += figure
    if measured.class_errors:
        blocks += [*_class_errors(measured.class_errors), *of_classes]
    if attention:
        maps = picture("attention-maps/maps", "attention maps") if attention.has_picture else ""
        blocks += ["## Attention maps", attention.caption, maps, _distances(attention)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _figure(name: str, measured: Measured) -> list[str]:
    figure = FIGURES[name]
    return [f"## {figure.title}", escape(figure.said(measured)), picture(f"figures/{name}", figure.title)]


def _class_errors(errors: ClassErrors) -> list[str]:
    lines = [
        [label(name), f"{images:,.0f}", *(f"{error:.2f}" for error in of_rows)]
        for label, (name, images, of_rows) in [
            *((escape, line) for line in errors.lines),
            (lambda name: f"**{name}**", errors.last_line),
        ]
    ]
    blocks = [f"## {TITLE}", errors.caption(escape), _aligned(lines, map(escape, errors.headings), texts=1)]
    if confusions := list(errors.frequent_confusions):
        shown = [
            [escape(label), escape(prediction), f"{images:,.1f}", f"{share:.1f}"]
            for label, prediction, images, share in confusions
        ]
        headings = CONFUSION_HEADINGS
        blocks += [f"## {CONFUSIONS_TITLE}", errors.confusions_caption(escape), _aligned(shown, headings, texts=2)]
    return blocks


def _aligned(lines: Iterable[Iterable[str]], headings: Iterable[str], texts: int) -> str:
    """A table whose first columns are texts and the others numbers."""
    headings = list(headings)
    alignment = ["left"] * texts + ["right"] * (len(headings) - texts)
    return tabulate(lines, headings, "pipe", disable_numparse=True, colalign=alignment)


def _distances(attention: Attention) -> str:
    groups = range(len(attention.distances["distilled"]))
    lines = [
        [escape(attention.titles[role]), *(f"{values[group]:.3f}" for group in groups)]
        for role, values in attention.distances.items()
    ]
    headers = [f"Mean distance over {attention.images:,} images", *(f"Group {group + 1}" for group in groups)]
    return _aligned(lines, headers, texts=1)


def picture(path: str, text: str) -> str:
    """Markdown for a figure that follows the reader's light or dark theme."""
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{path}-dark.svg">'
        f'<img alt="{text}" src="{path}.svg"></picture>'
    )


def _table(table: Table, rows: dict[str, ResultRow]) -> list[str]:
    columns = table_columns(table, rows)
    lines = zip(*([_markdown(cell) for cell in column.cells] for column in columns))
    markdown = _aligned(lines, [escape(column.heading) for column in columns], texts=1)
    said = map(escape, [*int8_notes(table, rows), *measured_notes(table, rows)])
    notes = " ".join([*sources(table, escape, prose), *said, f"[As CSV](tables/{table.name}.csv)"])
    listed = "\n".join(f"- {prose(note)}" for note in table.notes)
    return [f"## {escape(table.title)}", prose(table.caption), markdown, listed, notes]


def _markdown(cell: Cell) -> str:
    text = escape(cell.text)
    return f"**{text}**" if cell.best else text
