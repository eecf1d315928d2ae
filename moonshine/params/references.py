"""Names in params.yaml that must refer to something: rows, networks, methods, the teacher."""

from collections.abc import Iterable, Iterator
from typing import Any

from moonshine.models.attention_points import attention_points
from moonshine.params.schema import PHOTOGRAPHS, Params
from moonshine.suggest import suggest


def check_references(params: Params) -> Iterator[str]:
    """One line for each name that refers to nothing, as `key: reason (did you mean ...?)`."""
    yield from _unknown("fetch", params.fetch, "network", params.networks)
    yield from _unknown("train", params.train, "network", params.networks)
    for key, group in (("distil", params.distil), ("distil_more", params.distil_more)):
        yield from _unknown(f"{key}.networks", group.networks, "network", params.networks)
        yield from _unknown(f"{key}.methods", group.methods, "method", params.methods)
    for repeated in sorted(set(params.distil.methods) & set(params.distil_more.methods)):
        yield f"distil_more.methods: {repeated} is in distil.methods already"
    repeatable: tuple[tuple[str, list[Any]], ...] = (
        ("seeds", params.seeds),
        ("train", params.train),
        ("distil.networks", params.distil.networks),
        ("distil.methods", params.distil.methods),
        ("distil_more.networks", params.distil_more.networks),
        ("distil_more.methods", params.distil_more.methods),
    )
    for key, names in repeatable:
        yield from (f"{key}: {name} is named twice" for name in sorted({n for n in names if names.count(n) > 1}))
    yield from _models(params)
    yield from _attention(params)
    yield from _augmentation(params)
    yield from _unknown("titles", params.titles, "row", params.rows)
    for table in params.tables:
        yield from _unknown(f"tables.{table.name}.rows", table.rows, "row", params.rows)
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
            yield f'{key}: "{name}" is no {kind}{suggest(name, known)}'


def _models(params: Params) -> Iterator[str]:
    produced = [f"{row}/seed{seed}" for row in params.rows for seed in params.seeds if not row.startswith("fetch/")]
    produced += [f"fetch/{network}" for network in params.fetch]
    undistilled = [model for model in produced if not model.startswith("distil/")]
    named = [("teacher", params.teacher, undistilled)] if any(row.startswith("distil/") for row in params.rows) else []
    named += [
        (f"attention_maps.{key}", getattr(params.attention_maps, key), produced) for key in ("scratch", "distilled")
    ]
    for key, model, models in named:
        if model not in models:
            yield f'{key}: no row produces "{model}"{suggest(model, models)}'
    if len(set(params.attention_maps.images)) != len(params.attention_maps.images):
        yield "attention_maps.images: one is named twice"


def _attention(params: Params) -> Iterator[str]:
    """Attention points of teacher and students, which attention transfer pairs one by one."""
    methods = [*params.distil.methods, *params.distil_more.methods]
    used = [name for name in methods if name in params.methods and params.methods[name].groups]
    networks = [*params.distil.networks, *params.distil_more.networks]
    students = [name for name in dict.fromkeys(networks) if name in params.networks]
    teacher = params.teacher.split("/")[1] if "/" in params.teacher else ""
    if not used or not students or teacher not in params.networks:
        return
    counts = {name: len(attention_points(params.networks[name].model_dump())) for name in [teacher, *students]}
    unnamed = [name for name, count in counts.items() if not count]
    for name in unnamed:
        yield f"networks.{name}.points: missing; {params.networks[name].arch} has no usual attention points, name them"
    if unnamed:
        return
    for name in students:
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
    """Photographs are cropped by area, small images after padding."""
    key, source, settings = "recipe.augmentation", params.dataset.source, params.recipe.augmentation
    if source in PHOTOGRAPHS:
        if settings.crop_scale is None:
            yield f"{key}.crop_scale: missing key; photographs are cropped by area, as a rule [0.08, 1.0]"
        if settings.pad is not None:
            yield f"{key}.pad: for small images, not for {source}"
    elif settings.crop_scale is not None:
        yield f"{key}.crop_scale: for photographs, not for {source}"
