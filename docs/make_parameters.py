"""Write the tables of docs/parameters.md from moonshine/params/schema/: `make docs`.

A table stands between markers that name a class of the schema; the text around them is written by hand.
"""

import ast
import re
import types
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from moonshine.params import schema
from moonshine.params.defaults import may_be_left_out

PAGE = Path(__file__).with_name("parameters.md")
TABLE = re.compile(r"(<!-- (\w+): begin -->\n\n).*?(\n<!-- \2: end -->)", re.DOTALL)
NAMES = {int: "integer", float: "number", bool: "`true` or `false`", str: "text"}
PLACES = {
    "Params": (),
    "Dataset": ("dataset",),
    "Recipe": ("recipe",),
    "Augmentation": ("recipe", "augmentation"),
    "Method": ("methods", "*"),
    "Dist": ("methods", "*", "dist"),
    "Checkpoint": ("fetch", "*"),
    "PinnedFile": ("networks", "*", "init"),
    "Search": ("search", "*"),
    "Distil": ("distil",),
    "AttentionMaps": ("attention_maps",),
    "Quantise": ("quantise", "*"),
}
"""Section -> its place in the file, for those with keys that may be left out."""
LARGEST = 2**31
"""The upper limit of every count, which is not worth a mention."""


def page(text: str) -> str:
    """The page with its tables as the schema has them."""
    docstrings = _docstrings()
    headings = {match[2]: text[: match.start()].rpartition("\n#")[2] for match in TABLE.finditer(text)}
    anchors = {
        name: re.sub(r"[^\w\- ]", "", heading.partition("\n")[0].lstrip("# ")).replace(" ", "-").lower()
        for name, heading in headings.items()
    }
    return TABLE.sub(lambda match: match[1] + _table(match[2], docstrings[match[2]], anchors) + match[3], text)


def _docstrings() -> dict[str, dict[str, str]]:
    """Class of the schema -> key -> the docstring below it, of its own or a base class's keys."""
    found = dict[str, dict[str, str]]()
    files = sorted(Path(schema.__file__).parent.glob("*.py"))
    for section in chain.from_iterable(ast.parse(file.read_text()).body for file in files):
        if isinstance(section, ast.ClassDef):
            below = zip(section.body, section.body[1:])
            bases = [docstring for base in section.bases for docstring in found.get(ast.unparse(base), {}).items()]
            found[section.name] = dict(bases) | {
                key.target.id: " ".join(text.value.value.split())
                for key, text in below
                if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
                if isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            }
    return found


def _table(name: str, docstrings: dict[str, str], anchors: dict[str, str]) -> str:
    section = getattr(schema, name)
    hints = get_type_hints(section, include_extras=True)
    lines = ["| Key | Type | Default | Meaning |", "|---|---|---|---|"]
    for key, field in section.model_fields.items():
        if name in PLACES and may_be_left_out((*PLACES[name], key)):
            default = "filled in"
        else:
            default = "required" if field.is_required() else _default(field.default)
        lines.append(f"| `{key}` | {_type(hints[key], anchors)} | {default} | {docstrings[key]} |")
    return "".join(f"{line}\n" for line in lines)


def _default(value: Any) -> str:
    if value is None:
        return "optional"
    return "`{}`" if isinstance(value, schema.Section) else f"`{value}`"


def _type(hint: Any, anchors: dict[str, str]) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([_type(arguments[0], anchors), *_limits(arguments[1:])])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(choice, anchors) for choice in arguments if choice is not types.NoneType)
    if origin is list:
        return f"list of {_type(arguments[0], anchors)}"
    if origin is dict:
        return f"{_type(arguments[0], anchors)} -> {_type(arguments[1], anchors)}"
    return NAMES[hint] if hint in NAMES else f"[{hint.__name__}](#{anchors[hint.__name__]})"


def _limits(constraints: tuple[Any, ...]) -> Iterator[str]:
    """What a number or a list of this type is limited to; rules that only a function knows are in the docstring."""
    signs = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}
    limits = [limit for field in constraints if isinstance(field, FieldInfo) for limit in field.metadata]
    numbers = [(signs[type(limit)], limit) for limit in limits if type(limit) in signs]
    shown = [f"{sign} {getattr(limit, key)}" for (key, sign), limit in numbers if getattr(limit, key) != LARGEST]
    if shown:
        yield ", ".join(shown)
    lengths = {type(limit): limit for limit in limits}
    least = lengths[MinLen].min_length if MinLen in lengths else None
    most = lengths[MaxLen].max_length if MaxLen in lengths else None
    if most is not None:
        yield f"({most} entries)" if least == most else f"({least or 0} to {most} entries)"
    elif least is not None:
        yield "(not empty)"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
