"""What pydantic finds wrong with a value of params.yaml, in the words of the docs."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from moonshine.params.defaults import may_be_left_out
from moonshine.params.schema import Params
from moonshine.runtime.suggest import suggest

MESSAGES = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping of keys to values",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt:,.10g}",
    "greater_than_equal": "must be at least {ge:,.10g}",
    "int_type": "must be an integer",
    "less_than": "must be below {lt:,.10g}",
    "less_than_equal": "must be at most {le:,.10g}",
    "model_type": "must be a mapping of keys to values",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be text",
    "too_long": "must have at most {max_length} values, has {actual_length}",
    "too_short": "must have at least {min_length} values, has {actual_length}",
}
"""Error type of pydantic -> message; the braces are filled with pydantic's limits."""
PATTERNS = {
    r"^[a-z0-9][a-z0-9_-]*$": "must be of lower-case letters, digits, - and _, and begin with a letter or a digit",
    r"^[A-Za-z0-9_][A-Za-z0-9_.,-]*$": "must be of letters, digits and _ . , -",
    r"^[0-9a-f]{64}$": "must be 64 hexadecimal digits in lower case",
    r"^[0-9a-f]{32}$": "must be 32 hexadecimal digits in lower case",
}
EXAMPLES: dict[Any, str] = {int: "[0, 1, 2]", float: "[0.1, 0.2]", str: "[one, two]"}
LONGEST = 60
"""Characters of a found value that are shown."""


def explain(errors: Iterable[Any], left_out: str | None = None) -> Iterator[str]:
    """One line for each error of a ValidationError, as `key: message, found value`.

    `left_out` is the message for keys that files in experiments/ may leave out, if this file may not.
    """
    for error in errors:
        branches = [part for part in error["loc"] if _is_branch(part)]
        is_list = isinstance(error["input"], list)
        tried = [part for part in branches if not part.startswith("init[")]  # of init, only what was meant is tried
        if any(error["type"] == "list_type" if part.startswith("list[") else is_list for part in tried):
            continue  # the key may be a list or not: skip the branch that was not meant
        location = tuple(part for part in error["loc"] if not _is_branch(part) and part != "[key]")
        message = _message(error, location)
        if left_out and error["type"] == "missing" and may_be_left_out(location):
            message = left_out
        yield f"{'.'.join(map(str, location)) or '(whole file)'}: {message}"


def _is_branch(part: object) -> bool:
    """Whether this is how pydantic names which of several types it tried."""
    return isinstance(part, str) and part.startswith(("constrained-", "list[", "init["))


def _message(error: Any, location: tuple[Any, ...]) -> str:
    kind, found = error["type"], error["input"]
    if kind == "extra_forbidden" and str(location[-1]).endswith(")"):
        return 'unknown key; within braces, a convolution with a comma needs quotes: conv: "BG(2,M)"'
    if kind == "extra_forbidden":
        return f"unknown key{suggest(str(location[-1]), keys_at(location[:-1]))}"
    if kind == "missing":
        keys = keys_at(location[:-1])
        return f"missing key; keys here are {', '.join(keys)}" if keys else "missing key"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"must be one of {', '.join(choices)}, found {_shown(found)}"
    if kind == "list_type":
        return f"must be a list{_example_at(location)}, found {_shown(found)}"
    if kind == "string_pattern_mismatch":
        return f"{PATTERNS[error['ctx']['pattern']]}, found {_shown(found)}"
    message = MESSAGES.get(kind, error["msg"]).format(**error.get("ctx", {}))
    if kind.startswith("too_"):
        return message.replace(" 1 values", " 1 value")
    return f"{message}, found {_shown(found)}"


def _shown(value: object) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) < LONGEST else f"{text[: LONGEST - 3]}..."


def _example_at(location: tuple[Any, ...]) -> str:
    section, key = _section_at(location[:-1]), location[-1]
    if section is None or key not in section.model_fields:
        return ""
    examples = (EXAMPLES.get(item) for item in _items(section.model_fields[key].annotation))
    example = next((example for example in examples if example), None)
    return f", for example {example}" if example else ""


def _items(annotation: Any) -> Iterator[Any]:
    """The types of the items of the lists within an annotation."""
    for argument in get_args(annotation):
        if get_origin(annotation) is list:
            yield get_args(argument)[0] if get_origin(argument) is not None else argument
        else:
            yield from _items(argument)


def _section_at(location: tuple[Any, ...]) -> type[BaseModel] | None:
    """The schema class that governs a place in the file."""
    annotation: Any = Params
    for part in location:
        section = _model_in(annotation)
        if section is not None and part in section.model_fields:
            annotation = section.model_fields[part].annotation
    return _model_in(annotation)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model_in(argument))), None)


def keys_at(location: tuple[Any, ...]) -> list[str]:
    """The keys that the schema has at a place in the file, in its order; none for a mapping of names."""
    section = _section_at(location)
    return list(section.model_fields) if section else []
