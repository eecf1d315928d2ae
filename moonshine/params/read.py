"""Read params.yaml and say in one line, with the key and the likely right key, what is wrong with it."""

import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from moonshine.errors import ParamsError
from moonshine.params.references import check_references
from moonshine.params.schema import Params
from moonshine.suggest import suggest


def read_params(path: Path) -> Params:
    """Read and check a params file.

    Raises ParamsError (exit code 2) with one line a mistake, each naming the file and the key.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: expected a mapping of keys to values, found {type(content).__name__}")
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError("\n".join(f"{path}: {_explain(e)}" for e in error.errors())) from None
    mistakes = list(check_references(params))
    if mistakes:
        raise ParamsError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return params


def read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run this from the project's root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ParamsError(f"{path}: not valid YAML: {problem}") from None


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and aliases (a small file can expand to gigabytes through them).

    And numbers that are others in YAML 1.2, by which DVC reads the same file: 010 is 8 here and 10 there.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not used here", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is no text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _same_number(loader: _StrictLoader, node: yaml.ScalarNode) -> Any:
    if re.match(r"[-+]?0[0-9_]|.*:", node.value):
        problem = f"{node.value} is another number by YAML 1.2: write it without leading zeros and colons"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return _NUMBERS[node.tag](loader, node)


_NUMBERS = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")}
for tag in _NUMBERS:
    _StrictLoader.add_constructor(tag, _same_number)


def _explain(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location) or "(whole file)"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{suggest(location[-1], _keys_at(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{key}: missing key; {_meaning(error['loc'])}".rstrip("; ")
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}"
    found = repr(error["input"])
    return f"{key}: {error['msg']}, found {found if len(found) < 60 else found[:57] + '...'}"


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


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    section = _section_at(location)
    return list(section.model_fields) if section else []


def _meaning(location: tuple[Any, ...]) -> str:
    keys = _keys_at(location[:-1])
    return f"keys here are {', '.join(keys)}" if keys else ""
