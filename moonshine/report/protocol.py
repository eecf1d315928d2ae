"""What a page says on how everything in it was measured, and how to read it."""

from collections.abc import Callable

from moonshine.params import Params
from moonshine.params.schema import TEACHER, Table
from moonshine.project.rows import Row, parse_model
from moonshine.report.comparison import noise_in_words
from moonshine.report.recipes import changes_of_rate, differences_in_words, further_in_words, images_in_words
from moonshine.report.rows import ResultRow, untaught
from moonshine.report.sweeps import OF_AMOUNT, find_sweep
from moonshine.runtime.words import counted

NOT_RUN_YET = (
    'Rows marked "not run" have not been trained yet. `moonshine use {experiment}` and then either engine '
    "(`snakemake --cores all` or `dvc repro`) fills them in."
)


def notice(params: Params, rows: dict[str, ResultRow]) -> str:
    """The note at the top of a page with rows that have not run, else nothing."""
    missing = any(row.metrics is None for row in rows.values())
    return NOT_RUN_YET.format(experiment=params.experiment) if missing else ""


def protocol(params: Params, rows: dict[str, ResultRow], name: Callable[[str], str] = str) -> str:
    """On what, how often and with which recipes everything below was measured; `name` formats titles for the page."""
    recipe = params.recipe
    measured = next((row.metrics for row in rows.values() if row.metrics), None)
    images = f"{measured['n']:,} validation images" if measured else "validation images"
    count = len(params.seeds)
    over = f"mean ± standard deviation over {count} seeds" if count > 1 else "from one seed"
    changed = f", {words}" if (words := changes_of_rate(recipe)) else ""
    part = f"on {images_in_words(recipe)} " if recipe.images else ""
    precision = "" if recipe.precision == "float32" else f" in {recipe.precision}"
    weights = ", classes of equal weight" if recipe.class_weights else ""
    has_published = params.fetch or params.teacher_has_other_classes
    trained = "Networks without published weights" if has_published else "All networks"
    seeds = ", ".join(map(str, params.seeds))
    return (
        f"Errors are percentages of the {images} of {params.dataset.name}, {over} ({seeds}). {trained} are trained "
        f"{part}for {counted(recipe.epochs, 'epoch')}{precision} with batch size {recipe.batch_size}{weights}, "
        f"weight decay {recipe.weight_decay:g} and a learning rate of {recipe.lr:g}{changed}.{further_in_words(recipe)}"
        f"{_other_recipes(params, name)}{_beginnings(params, name)}{_other_classes(params, name)} "
        "No. Params includes the running means and variances of batch norm, Trainable does not; MACs are "
        f"multiply-accumulates per image.{_fidelity(params)} The best value of each column is bold."
    )


def _fidelity(params: Params) -> str:
    """What the columns of `FIDELITY` are, of those that a table has; else nothing."""
    meaning = {
        "agreement": "Agreement is the share of validation images that get the teacher's class",
        "kl": "KL is the mean Kullback-Leibler divergence from the teacher's probabilities, in nats",
        "ece": "ECE is the expected calibration error over 15 bins of confidence (Guo et al. 2017)",
    }
    columns = {column for table in params.tables for column in table.columns}
    told = "; ".join(words for key, words in meaning.items() if key in columns)
    return f" {told}." if told else ""


def _other_recipes(params: Params, name: Callable[[str], str]) -> str:
    """Sentences on the rows that are trained in another way than the experiment's recipe says; else nothing."""
    sweep = find_sweep(params)
    rows: dict[str, list[str]] = {}
    for row in params.seeded_rows:
        usual = params.recipe
        if sweep and row.network in sweep.values:
            own = params.recipe_of(Row("train", row.network))
            usual = usual.model_copy(update={key: getattr(own, key) for key in OF_AMOUNT})
        if settings := differences_in_words(params.recipe_of(row), usual):
            rows.setdefault(settings, []).append(name(params.title(row)))
    listed = "; ".join(f"{', '.join(titles)} ({settings})" for settings, titles in rows.items())
    swept = f" Networks of one architecture had {sweep.in_words}." if sweep else ""
    return swept + (f" Trained in another way: {listed}." if listed else "")


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
    is_image_by_image = any(row.compared.only_one_wrong for row in rows.values())
    return f"{minus}{brackets}{noise_in_words(len(params.seeds), is_image_by_image, published)}"


def sources(table: Table, name: Callable[[str], str] = str, source: Callable[[str], str] = str) -> list[str]:
    """Where each published column is from; `name` and `source` format these two for the page."""
    return [f"{name(each.name)}: {source(each.source).strip().rstrip('.')}." for each in table.published]
