"""Names in params.yaml that must refer to something: rows, networks, methods, the teacher."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.names import is_torchvision_resnet
from moonshine.params.schema import JPEG_SOURCES, TEACHER, Augmentation, Dataset, MisfitError, Params
from moonshine.project.rows import Row, model_name
from moonshine.runtime.suggest import suggest

OWN_COLUMNS = ("_std", "_minus_scratch", "_minus_compared", "_difference", "_p")
"""Suffixes of columns in a table's CSV that say more about another column."""


def check_references(params: Params) -> Iterator[str]:
    """One line for each name that refers to nothing, as `key: reason (did you mean ...?)`."""
    yield from _unknown("fetch", params.fetch, "network", params.networks)
    yield from _unknown("fetch_teacher", params.fetch_teacher, "network", params.networks)
    yield from _unknown("train", params.train, "network", params.networks)
    yield from _unknown("train_from_teacher", params.train_from_teacher, "network", params.networks)
    for key, group in (("distil", params.distil), ("distil_more", params.distil_more)):
        yield from _unknown(f"{key}.networks", group.networks, "network", params.networks)
        yield from _unknown(f"{key}.methods", group.methods, "method", params.methods)
    for repeated in sorted(set(params.distil.methods) & set(params.distil_more.methods)):
        yield f"distil_more.methods: {repeated} is already in distil.methods"
    repeatable: tuple[tuple[str, list[Any]], ...] = (
        ("seeds", params.seeds),
        ("train", params.train),
        ("train_from_teacher", params.train_from_teacher),
        ("distil.networks", params.distil.networks),
        ("distil.methods", params.distil.methods),
        ("distil_more.networks", params.distil_more.networks),
        ("distil_more.methods", params.distil_more.methods),
    )
    for key, names in repeatable:
        yield from (f"{key}: duplicate entry {name}" for name in sorted({n for n in names if names.count(n) > 1}))
    yield from _other_classes(params)
    yield from _starts(params)
    yield from _found(params)
    yield from _stage_names(params)
    yield from _models(params)
    yield from _attention(params)
    yield from _quantised(params)
    names_of_rows = [row.name for row in params.rows]
    measured = [row.name for row in params.evaluated_rows]
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
        for unmeasured in sorted(set(table.rows) - set(measured)):
            if unmeasured in names_of_rows:
                yield f"tables.{table.name}.rows: {unmeasured} has other classes than the data set; leave it out"
        yield from _unknown(f"tables.{table.name}.compare", [table.compare] if table.compare else [], "row", measured)
        for published in table.published:
            key = f"tables.{table.name}.published.{published.name}.values"
            yield from _unknown(key, published.values, "row of this table", table.rows)
    yield from dict.fromkeys(line for row in _trainable(params) for line in _recipe(params, row))


def _unknown(key: str, names: Iterable[str], kind: str, known: Iterable[str]) -> Iterator[str]:
    known = set(known)
    for name in names:
        if name not in known:
            yield f'{key}: unknown {kind} "{name}"{suggest(name, known)}'


def _quantised(params: Params) -> Iterator[str]:
    """Rows that are quantised are rows of the experiment, and published ones are named by their network."""
    yield from _unknown("quantise_fetch", params.quantise_fetch, "published network", params.fetch)
    seeded = [row.name for row in params.seeded_rows]
    for name in params.quantise:
        network = name.removeprefix("fetch/")
        if network != name and network in params.fetch:
            yield f"quantise: {name} is a published network; name {network} in quantise_fetch"
        else:
            yield from _unknown("quantise", [name], "row", seeded)
    quantised = {*params.quantise, *(f"fetch/{network}" for network in params.quantise_fetch)}
    for table in params.tables:
        if {"int8_top1", "int8_top5", "int8_size"} & {*table.columns} and quantised.isdisjoint(table.rows):
            yield f"tables.{table.name}.columns: no row of the table is quantised (quantise, quantise_fetch)"


def _other_classes(params: Params) -> Iterator[str]:
    """What a network for other classes than the data set's is used for, although it can only transfer attention."""
    for name, checkpoint in params.fetch.items():
        if checkpoint.classes is not None:
            yield f"fetch.{name}.classes: its errors on other classes mean nothing; move {name} to fetch_teacher"
    others = {
        "fetch": [*params.fetch],
        "train": params.train,
        "train_from_teacher": params.train_from_teacher,
        "distil.networks": params.distil.networks,
        "distil_more.networks": params.distil_more.networks,
    }
    for name, checkpoint in params.fetch_teacher.items():
        if checkpoint.classes is None:
            yield f"fetch_teacher.{name}.classes: missing key; the number of classes that the checkpoint is for"
        for key, names in others.items():
            if name in names:
                yield f"{key}: {name} is in fetch_teacher, for other classes; add a network of another name for this"
    if params.teacher_has_other_classes:
        for method in params.used_methods:
            if method in params.methods and params.methods[method].uses_logits:
                yield (
                    f"methods.{method}: {params.teacher} has other classes than the data set (fetch_teacher), so "
                    "logits cannot be compared; transfer attention alone (beta and groups)"
                )


def _starts(params: Params) -> Iterator[str]:
    """Networks that begin with the teacher's weights need a stage that waits for the teacher, and no others do."""
    begin = {name for name, network in params.networks.items() if network.init == TEACHER}
    for name in params.train:
        if name in begin:
            yield f"train: {name} has `init: teacher`; move it to train_from_teacher, which waits for the teacher"
    for name in params.train_from_teacher:
        if name in params.networks and name not in begin:
            yield f"train_from_teacher: {name} has no `init: teacher`; move it to train, or set networks.{name}.init"
    for name, checkpoint in params.checkpoints.items():
        if given := checkpoint.normalisation:
            for key, values in (("mean", given.mean), ("std", given.std)):
                if len(values) != params.dataset.channels:
                    yield (
                        f"{params.checkpoint_key(name)}.normalisation.{key}: {len(values)} values, but images of "
                        f"{params.dataset.channels} channels"
                    )


def _found(params: Params) -> Iterator[str]:
    """Networks with convolutions that a search has found, but not for the same architecture."""
    for name, network in params.networks.items():
        if network.found_by is None:
            continue
        key = f"networks.{name}.found_by"
        yield from _unknown(key, [network.found_by], "search", params.search)
        if search := params.search.get(network.found_by):
            candidate, candidates = network.candidate, search.candidates
            if candidate is not None and candidate >= candidates:
                yield f"networks.{name}.candidate: {candidate}, but {network.found_by} has {candidates:,}, from 0"
            for part in ("arch", "channels", "stem"):
                given, searched = getattr(network, part), getattr(search, part)
                if given != searched:
                    yield f"{key}: {network.found_by} has {part} {searched}, but networks.{name} has {given}"


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
    if params.teacher in produced and produced[params.teacher].network in params.train_from_teacher:
        yield f"teacher: {params.teacher} begins with the teacher's weights (train_from_teacher); name another model"
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
    held_out, last = params.dataset.validation, max(params.attention_maps.images, default=0)
    if held_out and last >= held_out:
        yield f"attention_maps.images: {last}, but the last validation image is {held_out - 1}"


def _attention(params: Params) -> Iterator[str]:
    """Attention points of all networks that attention transfer or the attention maps pair one to one."""
    used = [name for name in params.used_methods if name in params.methods and params.methods[name].groups]
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


def _trainable(params: Params) -> Iterator[Row]:
    """Every row that is trained, and one for each network and method that none of them uses."""
    rows = [
        row
        for row in params.seeded_rows
        if row.network in params.networks and (not row.method or row.method in params.methods)
    ]
    yield from rows
    yield from (Row("train", name) for name in params.networks if name not in {row.network for row in rows})
    plain = [name for name, network in params.networks.items() if not network.recipe]
    unused = [name for name in params.methods if name not in {row.method for row in rows}]
    yield from (Row("distil", plain[0], name) for name in unused if plain)


def _recipe(params: Params, row: Row) -> Iterator[str]:
    """What is wrong with a row's recipe, whose keys may be in three places of params.yaml."""
    try:
        recipe = params.recipe_of(row)
    except ValidationError as error:
        yield from (_misfit(params, row, each["ctx"]["error"]) for each in error.errors())
        return
    if recipe.images and recipe.images < params.dataset.classes:
        yield f"{params.recipe_key(row, 'images')}: {recipe.images} images, but {params.dataset.classes} classes"
    yield from _augmentation(params.recipe_key(row, "augmentation"), recipe.augmentation, params.dataset)
    if recipe.zero_init_residual and row in params.seeded_rows:
        yield from _zero_init(params, row)
    if row.method:
        method = params.methods[row.method]
        of_row = "" if params.recipe_key(row, "epochs") == "recipe.epochs" else f" of {row}"
        for key, epoch in (("first_epoch", method.first_epoch), ("last_epoch", method.last_epoch)):
            if epoch and epoch > recipe.epochs:
                yield f"methods.{row.method}.{key}: {epoch} is after the last of {recipe.epochs} epochs{of_row}"
        if method.dkd and recipe.augmentation.mixes:
            key = params.recipe_key(row, "augmentation")
            yield (
                f"methods.{row.method}.dkd: is not defined for images of two classes, which mixup and cutmix of {key} "
                "make; leave out either"
            )
        warmup = method.dkd.warmup_epochs if method.dkd else None
        if warmup and warmup > recipe.epochs:
            yield f"methods.{row.method}.dkd.warmup_epochs: {warmup} is more than the {recipe.epochs} epochs{of_row}"
        if method.standardise_logits and params.dataset.classes < 3:
            yield (
                f"methods.{row.method}.standardise_logits: standardised logits of {params.dataset.classes} classes do "
                "not depend on the network; leave it out"
            )


def _zero_init(params: Params, row: Row) -> Iterator[str]:
    """That residual blocks cannot begin as the identity."""
    key, network = params.recipe_key(row, "zero_init_residual"), params.networks[row.network]
    is_common = key == "recipe.zero_init_residual"
    cure = f"; set networks.{row.network}.{key}: false" if is_common else "; leave it out"
    if not is_torchvision_resnet(network.arch):
        yield f"{key}: only valid for torchvision's ResNets, not for {network.arch} of {row}{cure}"
    elif network.init is not None:
        yield f"{key}: has no effect on {row}, whose weights begin as networks.{row.network}.init says{cure}"


def _misfit(params: Params, row: Row, misfit: MisfitError) -> str:
    """Which key to correct, for what the schema says of a merged recipe: `lr_steps: 6 is not before the last of 5 ...`.

    The key may be in another place than the one that it does not fit; the one of the narrower place is to be corrected.
    """
    of_key, of_other = (params.recipe_key(row, key) for key in (misfit.key, misfit.other))
    places = ["recipe", "networks", "methods"]
    if places.index(of_other.split(".")[0]) <= places.index(of_key.split(".")[0]):
        return f"{of_key}: {misfit.reason} of {row}"
    is_common = misfit.key == "processes"  # which no own recipe can set
    cure = "" if is_common else f"; set {of_other.removesuffix(misfit.other)}{misfit.key} too"
    return f"{of_other}: {of_key}: {misfit.reason}{cure}"


def _augmentation(key: str, settings: Augmentation, dataset: Dataset) -> Iterator[str]:
    """JPEG images are cropped by area, to any size; small images after padding."""
    source = dataset.source
    if source in JPEG_SOURCES:
        if settings.crop_scale is None:
            yield f"{key}.crop_scale: missing key; JPEG images are cropped by area, as a rule [0.08, 1.0]"
        if settings.pad is not None:
            yield f"{key}.pad: for small images, not for {source}"
        if settings.crop_size and dataset.resize and settings.crop_size > dataset.resize:
            larger = f"{settings.crop_size} is more than dataset.resize {dataset.resize}"
            yield f"{key}.crop_size: {larger}, so every crop would be enlarged; choose less"
    elif settings.crop_size is not None:
        yield f"{key}.crop_size: for JPEG images, not for {source}, whose images all have dataset.size"
    elif settings.crop_scale is not None:
        yield f"{key}.crop_scale: for JPEG images, not for {source}"
    elif settings.pad and settings.pad >= dataset.size:
        yield f"{key}.pad: {settings.pad} would move images of {dataset.size} pixels out of sight"
    size = settings.crop_size or dataset.size
    if settings.cutout and settings.cutout > size:
        yield f"{key}.cutout: {settings.cutout} is more than the {size} pixels of a training image; choose less"
