"""`moonshine report`: results/<experiment>/README.md, its tables and its figures."""

from pathlib import Path

from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.project.rows import parse_model
from moonshine.report.attention import read_attention
from moonshine.report.class_errors import read_class_errors
from moonshine.report.curves import read_curves
from moonshine.report.figures.catalogue import figure_files
from moonshine.report.figures.measured import Measured
from moonshine.report.figures.rendering import say_what_font_lacks
from moonshine.report.headline import headline
from moonshine.report.index import FILE as HEADLINE
from moonshine.report.index import index_page
from moonshine.report.page import markdown_page
from moonshine.report.rows import CostsOf, ResultRow, read_rows
from moonshine.report.searches import read_searches
from moonshine.report.sweeps import find_sweep
from moonshine.report.tables import table_csv
from moonshine.report.web_page import web_page
from moonshine.runtime import signals
from moonshine.runtime.files import keep_only, write_bytes, write_json, write_text
from moonshine.runtime.progress import say
from moonshine.runtime.words import counted


def report(params: Params, costs_of: CostsOf | None = None) -> None:
    """Write the page that a reviewer reads; the same metrics and params give the same bytes.

    With `costs_of` it is written even if rows have not run, which the page notes. Raises DataError (exit code 3) if
    metrics, curves, attention maps or what a search has found are missing or damaged, Interrupted for a stop before
    anything is written.
    """
    partial = costs_of is not None
    rows = read_rows(params, costs_of)
    measured = _measured(params, rows, partial)
    attention = read_attention(params, partial)
    folder = artefacts.results_folder(params.experiment)
    # everything is made before anything is written, so an error leaves the old page intact
    pages = {"README.md": markdown_page, "report.html": web_page}
    texts = {name: page(params, rows, measured, attention) for name, page in pages.items()}
    figures = figure_files(measured)
    say_what_font_lacks(figures)
    tables = {f"{table.name}.csv": table_csv(table, rows).encode() for table in params.tables}
    signals.poll()  # for the last time: once started, writing is not interrupted
    _write_folder(folder / "tables", tables)
    _write_folder(folder / "figures", figures)
    for name, text in texts.items():
        write_text(folder / name, text)
    shown = {"experiment": params.experiment, "data": params.dataset.name, "rows": headline(params, rows)}
    write_json(folder / HEADLINE, shown)
    write_text(folder.parent / "README.md", index_page(folder.parent))
    missing = sum(row.metrics is None for row in rows.values())
    count = f"{counted(len(params.tables), 'table')} of {counted(len(rows), 'row')}"
    say(f"{folder / 'README.md'}: {count}, {missing} not run")


def _measured(params: Params, rows: dict[str, ResultRow], partial: bool) -> Measured:
    row_of_teacher, seed = parse_model(params.teacher)
    teacher = rows.get(row_of_teacher.name)
    measured = {row.row: row for row in rows.values() if row.metrics}
    curves = {row: curve for row, curve in read_curves(params, partial).items() if row in measured}
    steps = [params.recipe_of(row).lr_steps for row in curves]
    return Measured(
        rows=list(measured.values()),
        curves=curves,
        teacher=teacher if teacher and teacher.metrics else None,
        teacher_seed=None if seed is None else str(seed),
        lr_steps=steps[0] if steps and steps.count(steps[0]) == len(steps) else [],
        class_errors=read_class_errors(params, rows),
        searches=read_searches(params, partial),
        sweep=find_sweep(params),
    )


def _write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Make the folder hold these files and no others, such as a table that params no longer name."""
    for name, content in files.items():
        write_bytes(folder / name, content)
    keep_only(folder, files)
