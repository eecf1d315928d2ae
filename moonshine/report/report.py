"""`moonshine report`: results/<experiment>/README.md and its figures."""

from moonshine import artefacts
from moonshine.files import write_bytes, write_text
from moonshine.params import Params
from moonshine.progress import say
from moonshine.report.figures import error_against_parameters
from moonshine.report.rows import Row, read_rows
from moonshine.report.tables import table_frame

FIGURE = "error-against-parameters.svg"


def report(params: Params) -> None:
    """Write the page that a reviewer reads; the same metrics and params give the same bytes."""
    rows = read_rows(params)
    folder = artefacts.results_folder(params.experiment)
    write_bytes(folder / "figures" / FIGURE, error_against_parameters(rows))
    write_text(folder / "README.md", page(params, rows))
    say(f"{folder / 'README.md'}: {len(params.tables)} tables of {len(rows)} rows")


def page(params: Params, rows: dict[str, Row]) -> str:
    """The page as Markdown."""
    lines = [f"# Results: {params.experiment}", "", _protocol(params, rows), ""]
    for table in params.tables:
        markdown = table_frame(table, rows).to_markdown(index=False, disable_numparse=True)
        lines += [f"## {table.title}", "", table.caption, "", markdown, ""]
        lines += [f"{published.name}: {published.source}." for published in table.published]
        lines += [""] if table.published else []
    lines += ["## Error against parameters", "", f"![top-1 error over parameters](figures/{FIGURE})", ""]
    return "\n".join(lines)


def _protocol(params: Params, rows: dict[str, Row]) -> str:
    recipe = params.recipe
    measured = next((row.metrics for row in rows.values() if row.metrics), None)
    images = f"{measured['n']:,} validation images" if measured else "the validation images"
    seeds = ", ".join(str(seed) for seed in params.seeds)
    return (
        f"Errors in per cent on the {images} of {params.dataset.name}, mean ± standard deviation over "
        f"n = {len(params.seeds)} seeds ({seeds}). Every network: {recipe.epochs} epochs, batch size "
        f"{recipe.batch_size}, learning rate {recipe.lr:g} times {recipe.lr_factor:g} after epochs "
        f"{', '.join(map(str, recipe.lr_steps))}, weight decay {recipe.weight_decay:g}. "
        "No. Params counts the running means and variances of batch norm, Learnable does not; MACs are "
        "multiply-accumulates for one image."
    )
