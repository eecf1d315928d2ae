"""The order of keys in params.yaml changes nothing: whatever is shown in order takes that order from lists."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from moonshine.params.schema import DATA_FILES, Params
from moonshine.project.rows import Row

Value = TypeVar("Value")


def in_order(params: Params) -> Params:
    """The same params, with mappings that are iterated over in an order independent of the file's.

    Published networks are ordered as the tables name them, networks and methods as the rows do, files as their source
    lists them; anything else follows in alphabetical order.
    """
    rows = [Row.parse(name) for table in params.tables for name in table.rows]
    named = [row.network for row in rows if row.stage == "fetch"]
    fetched = {"fetch": _ordered(params.fetch, named), "fetch_teacher": _ordered(params.fetch_teacher, ())}
    params = params.model_copy(update=fetched)
    update: dict[str, object] = {
        "search": _ordered(params.search, ()),
        "quantise": _ordered(params.quantise, [row.name for row in params.rows]),
        "quantise_fetch": _ordered(params.quantise_fetch, named),
        "networks": _ordered(params.networks, [row.network for row in params.rows]),
        "methods": _ordered(params.methods, params.used_methods),
    }
    if files := params.dataset.files:
        roles = DATA_FILES[params.dataset.source]
        update["dataset"] = params.dataset.model_copy(update={"files": _ordered(files, roles)})
    return params.model_copy(update=update)


def _ordered(entries: Mapping[str, Value], first: Iterable[str]) -> dict[str, Value]:
    names = dict.fromkeys([*(name for name in first if name in entries), *sorted(entries)])
    return {name: entries[name] for name in names}
