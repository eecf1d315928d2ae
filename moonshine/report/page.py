"""results/<experiment>/README.md: the page that a reviewer reads."""

from collections.abc import Callable, Iterable

from tabulate import tabulate

from moonshine.params import Params
from moonshine.params.schema import TEACHER, Recipe, Table
from moonshine.project.rows import parse_model
from moonshine.report.attention import Attention
from moonshine.report.augmentation import augmentation_in_words, difference_in_words
from moonshine.report.class_errors import CONFUSION_HEADINGS, CONFUSIONS_TITLE, TITLE, ClassErrors
from moonshine.report.comparison import EXPLANATION
from moonshine.report.figures.catalogue import CONFUSION, FIGURES, drawable
from moonshine.report.figures.measured import Measured
from moonshine.report.markdown import escape, prose
from moonshine.report.methods import TITLE as MINIMISED
from moonshine.report.methods import objectives
from moonshine.report.rows import ResultRow, untaught
from moonshine.report.tables import Cell, table_columns
from moonshine.runtime.words import counted, enumerated

INTERACTIVE = "[report.html](report.html) has the same with sortable tables and interactive figures, in one file."
NOT_RUN_YET = (
    'Rows marked "not run" have not been trained yet. `moonshine use {experiment}` and then either engine '
    "(`snakemake --cores all` or `dvc repro`) fills them in."
)
OF_SCHEDULE = ("schedule", "lr_steps", "lr_factor", "lr_min", "warmup_epochs")
"""Keys of a recipe that together say how the learning rate changes."""


def markdown_page(params: Params, rows: dict[str, ResultRow], measured: Measured, attention: Attention | None) -> str:
    """The page as Markdown."""
    blocks = [f"# Results: {params.experiment}", notice(params, rows), protocol(params, rows, escape), INTERACTIVE]
    for table in params.tables:
        blocks += _table(table, rows)
    if told := objectives(params):
        lines = [[escape(key), words] for key, words in told]
        blocks += [f"## {MINIMISED}", _aligned(lines, ["Method", "Objective"], texts=2)]
    blocks += ["## Reading the differences", explanation(params, rows, escape)]
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


def notice(params: Params, rows: dict[str, ResultRow]) -> str:
    """The note at the top of a page with rows that have not run, else nothing."""
    missing = any(row.metrics is None for row in rows.values())
    return NOT_RUN_YET.format(experiment=params.experiment) if missing else ""


def sources(table: Table, name: Callable[[str], str] = str, source: Callable[[str], str] = str) -> list[str]:
    """Where each published column is from; `name` and `source` format these two for the page."""
    return [f"{name(each.name)}: {source(each.source).strip().rstrip('.')}." for each in table.published]


def _figure(name: str, measured: Measured) -> list[str]:
    figure = FIGURES[name]
    return [f"## {figure.title}", figure.said(measured), picture(f"figures/{name}", figure.title)]


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


def protocol(params: Params, rows: dict[str, ResultRow], name: Callable[[str], str] = str) -> str:
    """On what, how often and with which recipes everything below was measured; `name` formats titles for the page."""
    recipe = params.recipe
    measured = next((row.metrics for row in rows.values() if row.metrics), None)
    images = f"{measured['n']:,} validation images" if measured else "validation images"
    count = len(params.seeds)
    over = f"mean ± standard deviation over {count} seeds" if count > 1 else "from one seed"
    changed = f", {words}" if (words := _changes_of_rate(recipe)) else ""
    part = f"on {_images(recipe)} " if recipe.images else ""
    precision = "" if recipe.precision == "float32" else f" in {recipe.precision}"
    weights = ", classes of equal weight" if recipe.class_weights else ""
    has_published = params.fetch or params.teacher_has_other_classes
    trained = "Networks without published weights" if has_published else "All networks"
    seeds = ", ".join(map(str, params.seeds))
    return (
        f"Errors are percentages of the {images} of {params.dataset.name}, {over} ({seeds}). {trained} are trained "
        f"{part}for {counted(recipe.epochs, 'epoch')}{precision} with batch size {recipe.batch_size}{weights}, "
        f"weight decay {recipe.weight_decay:g} and a learning rate of {recipe.lr:g}{changed}.{_further(recipe)}"
        f"{_other_recipes(params, name)}{_beginnings(params, name)}{_other_classes(params, name)} "
        "No. Params includes the running means and variances of batch norm, Trainable does not; MACs are "
        "multiply-accumulates per image. The best value of each column is bold."
    )


def _other_recipes(params: Params, name: Callable[[str], str]) -> str:
    """A sentence on the rows that are trained in another way than the experiment's recipe says; else nothing."""
    rows: dict[str, list[str]] = {}
    for row in params.seeded_rows:
        if settings := _differing(params.recipe_of(row), params.recipe):
            rows.setdefault(settings, []).append(name(params.title(row)))
    listed = "; ".join(f"{', '.join(titles)} ({settings})" for settings, titles in rows.items())
    return f" Trained in another way: {listed}." if listed else ""


def _beginnings(params: Params, name: Callable[[str], str]) -> str:
    """Sentences on the rows whose weights are not random when their training begins; else nothing."""
    rows: dict[str, list[str]] = {}
    for row in params.seeded_rows:
        if init := params.networks[row.network].init:
            rows.setdefault("the teacher's" if init == TEACHER else "given", []).append(name(params.title(row)))
    return "".join(f" Trained from {whose} weights: {', '.join(titles)}." for whose, titles in rows.items())


def _other_classes(params: Params, name: Callable[[str], str]) -> str:
    """A sentence on a teacher whose errors are in no table, else nothing."""
    if not params.teacher_has_other_classes:
        return ""
    teacher = name(params.title(parse_model(params.teacher)[0]))
    return f" The teacher, {teacher}, was trained on other classes, so its error is not measured."


def _differing(recipe: Recipe, usual: Recipe) -> str:
    """In what a row's recipe differs from the experiment's, in words."""
    schedule = ""
    if any(getattr(recipe, key) != getattr(usual, key) for key in OF_SCHEDULE):
        changes = _changes_of_rate(recipe)
        schedule = f"learning rate {recipe.lr:g}, {changes}" if changes else f"constant learning rate {recipe.lr:g}"
    words = {
        "epochs": counted(recipe.epochs, "epoch"),
        "images": _images(recipe),
        "class_weights": "classes of equal weight" if recipe.class_weights else "images of equal weight",
        "batch_size": f"batch size {recipe.batch_size}",
        "lr": schedule or f"learning rate {recipe.lr:g}",
        **dict.fromkeys(OF_SCHEDULE, schedule),
        "momentum": f"momentum {recipe.momentum:g}",
        "weight_decay": f"weight decay {recipe.weight_decay:g}",
        "augmentation": difference_in_words(recipe.augmentation, usual.augmentation),
        "precision": f"in {recipe.precision}",
        "compile": "compiled" if recipe.compile else "not compiled",
        **_optional(recipe),
    }
    differing = [text for key, text in words.items() if getattr(recipe, key) != getattr(usual, key)]
    return ", ".join(dict.fromkeys(differing))


def _images(recipe: Recipe) -> str:
    return f"{recipe.images:,} training images" if recipe.images else "all training images"


def _changes_of_rate(recipe: Recipe) -> str:
    """How the learning rate changes; empty if it does not."""
    lowest = f"{recipe.lr_min or 0:g}"
    after = "epoch" if len(recipe.lr_steps) == 1 else "epochs"
    steps = f"multiplied by {recipe.lr_factor:g} after {after} {', '.join(map(str, recipe.lr_steps))}"
    falls = {"cosine": f"lowered to {lowest} along a cosine", "linear": f"lowered linearly to {lowest}"}
    fall = falls.get(recipe.schedule or "steps", steps if recipe.lr_steps else "")
    rises = f"reached in {counted(recipe.warmup_epochs, 'epoch')} of linear warm-up" if recipe.warmup_epochs else ""
    return " and ".join(filter(None, (rises, fall)))


def _further(recipe: Recipe) -> str:
    """A sentence on augmentation, and on those keys of the recipe that may be left out and are not; else nothing."""
    off = {"optimizer": "sgd", "label_smoothing": 0, "ema_decay": 0, "zero_init_residual": False}
    words = [*augmentation_in_words(recipe.augmentation)]
    words += [text for key, text in _optional(recipe).items() if getattr(recipe, key) not in (None, off.get(key))]
    return f" Training uses {enumerated(words)}." if words else ""


def _optional(recipe: Recipe) -> dict[str, str]:
    """Key of the recipe that may be left out -> what it does, in words."""
    norms = recipe.weight_decay if recipe.norm_weight_decay is None else recipe.norm_weight_decay
    smoothing, average = recipe.label_smoothing or 0, recipe.ema_decay or 0
    averaged = f"a moving average of the weights (decay {average:g}), which is evaluated"
    return {
        "optimizer": {"nesterov": "Nesterov momentum", "adamw": "AdamW"}.get(recipe.optimizer or "sgd", "SGD"),
        "norm_weight_decay": f"weight decay {norms:g} on normalisation layers",
        "clip_grad_norm": f"gradients clipped to norm {recipe.clip_grad_norm or 0:g}",
        "label_smoothing": f"label smoothing {smoothing:g}" if smoothing else "no label smoothing",
        "zero_init_residual": f"{'' if recipe.zero_init_residual else 'no '}zero-initialised residual blocks",
        "ema_decay": averaged if average else "no average of the weights",
    }


def explanation(params: Params, rows: dict[str, ResultRow], name: Callable[[str], str] = str) -> str:
    """How to read the columns with differences; `name` formats titles for the page."""
    published = any(table.published for table in params.tables)
    brackets = "The number in brackets after a published value is the measured one minus it. " if published else ""
    others = dict.fromkeys(rows[table.compare].title for table in params.tables if table.compare)
    minus = "".join(f'"− {name(title)}" is the error of a row minus that of {name(title)}. ' for title in others)
    if not all(table.compare for table in params.tables):
        minus = (
            f'"− {untaught(rows.values())}" is the error of a distilled network minus that of the same network trained '
            f"on labels alone: negative if the teacher helped. {minus}"
        )
    return f"{minus}{brackets}{EXPLANATION}"


def _table(table: Table, rows: dict[str, ResultRow]) -> list[str]:
    columns = table_columns(table, rows)
    lines = zip(*([_markdown(cell) for cell in column.cells] for column in columns))
    markdown = _aligned(lines, [escape(column.heading) for column in columns], texts=1)
    notes = " ".join([*sources(table, escape, prose), f"[As CSV](tables/{table.name}.csv)"])
    return [f"## {escape(table.title)}", prose(table.caption), markdown, notes]


def _markdown(cell: Cell) -> str:
    text = escape(cell.text)
    return f"**{text}**" if cell.best else text
