"""`moonshine report`: results/<experiment>/README.md, its tables and its figures."""

from pathlib import Path

from moonshine import artefacts
from moonshine.files import write_bytes, write_text
from moonshine.params import Params
from moonshine.progress import say
from moonshine.report.figures import error_against_parameters
from moonshine.report.page import markdown_page
from moonshine.report.rows import read_rows
from moonshine.report.tables import table_csv

SNAKEMAKE_TIMESTAMP = ".snakemake_timestamp"  # Snakemake's own note in folders that it declares
FIGURE = "error-against-parameters.svg"


def report(params: Params, partial: bool = False) -> None:
    """Write the page that a reviewer reads; the same metrics and params give the same bytes.

    `partial` writes it with rows that have not run, which the page then says.
    """
    rows = read_rows(params, partial)
    folder = artefacts.results_folder(params.experiment)
    tables = {f"{table.name}.csv": table_csv(table, rows).encode() for table in params.tables}
    figures = {FIGURE: error_against_parameters(rows)} if any(row.metrics for row in rows.values()) else {}
    _write_folder(folder / "tables", tables)
    _write_folder(folder / "figures", figures)
    write_text(folder / "README.md", markdown_page(params, rows))
    missing = sum(row.metrics is None for row in rows.values())
    say(f"{folder / 'README.md'}: {len(params.tables)} tables of {len(rows)} rows, {missing} not run")


def _write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Make the folder hold these files and no others, such as the table of a name that params no longer have."""
    for name, content in files.items():
        write_bytes(folder / name, content)
    for path in folder.glob("*"):
        if path.name not in files and path.name != SNAKEMAKE_TIMESTAMP:
            path.unlink()
