"""Names in params.yaml that must refer to something: rows, networks, methods, the teacher."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from moonshine.models.attention_layers import attention_layers_of
from moonshine.params.schema import JPEG_SOURCES, Params
from moonshine.project.rows import Row, model_name
from moonshine.runtime.suggest import suggest

OWN_COLUMNS = ("_std", "_minus_scratch", "_difference", "_p")
"""Suffixes of columns in a table's CSV that say more about another column."""


def check_references(params: Params) -> Iterator[str]:
    """One line for each name that refers to nothing, as `key: reason (did you mean ...?)`."""
    yield from _unknown("fetch", params.fetch, "network", params.networks)
    yield from _unknown("train", params.train, "network", params.networks)
    for key, group in (("distil", params.distil), ("distil_more", params.distil_more)):
        yield from _unknown(f"{key}.networks", group.networks, "network", params.networks)
        yield from _unknown(f"{key}.methods", group.methods, "method", params.methods)
    for repeated in sorted(set(params.distil.methods) & set(params.distil_more.methods)):
        yield f"distil_more.methods: {repeated} is already in distil.methods"
    repeatable: tuple[tuple[str, list[Any]], ...] = (
        ("seeds", params.seeds),
        ("train", params.train),
        ("distil.networks", params.distil.networks),
        ("distil.methods", params.distil.methods),
        ("distil_more.networks", params.distil_more.networks),
        ("distil_more.methods", params.distil_more.methods),
    )
    for key, names in repeatable:
        yield from (f"{key}: duplicate entry {name}" for name in sorted({n for n in names if names.count(n) > 1}))
    yield from _stage_names(params)
    yield from _models(params)
    yield from _attention(params)
    yield from _augmentation(params)
    names_of_rows = [row.name for row in params.rows]
    yield from _unknown("titles", params.titles, "row", names_of_rows)
    titles = [params.title(row) for row in params.rows]
    yield from (
        f'titles: "{title}" is the title of two rows' for title in sorted({t for t in titles if titles.count(t) > 1})
    )
    names = [table.name for table in params.tables]
    yield from (f"tables: duplicate entry {name}" for name in sorted({n for n in names if names.count(n) > 1}))
    for table in params.tables:
        columns = [published.name for published in table.published]
        for repeated in sorted({name for name in columns if columns.count(name) > 1}):
            yield f"tables.{table.name}.published: duplicate entry {repeated}"
        for taken in sorted({name for name in columns if f"_{name}".endswith(OWN_COLUMNS)}):
            yield f"tables.{table.name}.published: {taken} is already the name of a column of the CSV"
        for key, counts in (("rows", Counter(table.rows)), ("columns", Counter[str](table.columns))):
            for repeated in sorted(name for name, count in counts.items() if count > 1):
                yield f"tables.{table.name}.{key}: duplicate entry {repeated}"
        yield from _unknown(f"tables.{table.name}.rows", table.rows, "row", names_of_rows)
        for published in table.published:
            key = f"tables.{table.name}.published.{published.name}.values"
            yield from _unknown(key, published.values, "row of this table", table.rows)
    for name, method in params.methods.items():
        for epoch_key, epoch in (("first_epoch", method.first_epoch), ("last_epoch", method.last_epoch)):
            if epoch and epoch > params.recipe.epochs:
                yield f"methods.{name}.{epoch_key}: {epoch} is after the last of {params.recipe.epochs} epochs"


def _unknown(key: str, names: Iterable[str], kind: str, known: Iterable[str]) -> Iterator[str]:
    known = set(known)
    for name in names:
        if name not in known:
            yield f'{key}: unknown {kind} "{name}"{suggest(name, known)}'


def _stage_names(params: Params) -> Iterator[str]:
    """DVC names a stage by method and network, joined with a hyphen, which names may contain as well."""
    rows: dict[str, Row] = {}
    for row in dict.fromkeys(params.rows):
        name = f"{row.method}-{row.network}" if row.method else row.name
        if name in rows:
            yield f"distil: {rows[name]} and {row} would be one stage, distil@{params.experiment}-{name}; rename one"
        rows[name] = row


def _produced(params: Params) -> dict[str, Row]:
    """Every model of the experiment: name -> row."""
    trained = {model_name(row, seed): row for row in params.seeded_rows for seed in params.seeds}
    return trained | {model_name(row): row for row in params.rows if row.stage == "fetch"}


def _models(params: Params) -> Iterator[str]:
    produced = _produced(params)
    undistilled = [model for model, row in produced.items() if row.stage != "distil"]
    distilled = [model for model, row in produced.items() if row.stage == "distil"]
    named = [
        ("teacher", params.teacher, undistilled),
        ("attention_maps.scratch", params.attention_maps.scratch, undistilled),
        ("attention_maps.distilled", params.attention_maps.distilled, distilled or [*produced]),
    ]
    for key, model, models in named:
        if model in distilled and model not in models:
            yield f"{key}: {model} learned from a teacher; name a model of train or fetch"
        elif model in produced and model not in models:
            yield f"{key}: {model} learned from no teacher; name a model of distil"
        elif model not in models:
            yield f'{key}: no row produces "{model}"{suggest(model, models)}'
    if len(set(params.attention_maps.images)) != len(params.attention_maps.images):
        yield "attention_maps.images: duplicate entry"
    held_out, last = params.dataset.validation, max(params.attention_maps.images)
    if held_out and last >= held_out:
        yield f"attention_maps.images: {last}, but the last validation image is {held_out - 1}"


def _attention(params: Params) -> Iterator[str]:
    """Attention points of all networks that attention transfer or the attention maps pair one to one."""
    methods = [*params.distil.methods, *params.distil_more.methods]
    used = [name for name in methods if name in params.methods and params.methods[name].groups]
    shown = params.attention_maps
    produced = _produced(params)
    if params.teacher not in produced:
        return
    teacher = produced[params.teacher].network
    others = [produced[model].network for model in (shown.scratch, shown.distilled) if model in produced]
    names = [name for name in dict.fromkeys([teacher, *params.attention_students, *others]) if name in params.networks]
    if teacher not in names:
        return
    counts = {name: len(attention_layers_of(params.networks[name].model_dump())) for name in names}
    unnamed = [name for name, count in counts.items() if not count]
    for name in unnamed:
        yield f"networks.{name}.points: missing; {params.networks[name].arch} has no default points; list them"
    if unnamed:
        return
    for name in names:
        if counts[name] != counts[teacher]:
            yield (
                f"networks.{name}.points: {counts[name]} attention points, but the teacher {teacher} has "
                f"{counts[teacher]}; name as many"
            )
    for method in used:
        last = max(params.methods[method].groups or [])
        if last > counts[teacher]:
            yield f"methods.{method}.groups: {last}, but the teacher {teacher} has {counts[teacher]} groups"


def _augmentation(params: Params) -> Iterator[str]:
    """JPEG images are cropped by area, small images after padding."""
    key, source, settings = "recipe.augmentation", params.dataset.source, params.recipe.augmentation
    if source in JPEG_SOURCES:
        if settings.crop_scale is None:
            yield f"{key}.crop_scale: missing key; JPEG images are cropped by area, as a rule [0.08, 1.0]"
        if settings.pad is not None:
            yield f"{key}.pad: for small images, not for {source}"
    elif settings.crop_scale is not None:
        yield f"{key}.crop_scale: for JPEG images, not for {source}"
    elif settings.pad and settings.pad >= params.dataset.size:
        yield f"{key}.pad: {settings.pad} would move images of {params.dataset.size} pixels out of sight"
