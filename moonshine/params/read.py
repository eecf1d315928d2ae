"""Read params.yaml and report each mistake in one line, with the key and the likely right key."""

import re
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from moonshine.errors import ParamsError
from moonshine.params.defaults import Content, complete
from moonshine.params.messages import explain
from moonshine.params.order import in_order
from moonshine.params.references import check_references
from moonshine.params.schema import Params
from moonshine.project import artefacts

LEFT_OUT = (
    "missing key; DVC needs it here, only files in experiments/ may leave it out: save this file there as NAME.yaml "
    "and run `moonshine use NAME`, which fills it in"
)


def read_params(path: Path) -> Params:
    """Read and check a params file, with keys that it leaves out filled in.

    Raises ParamsError (exit code 2) with one line per mistake, each naming the file and the key.
    """
    return check_content(path, read_content(path))


def read_content(path: Path) -> Content:
    """What is in a params file, with keys that it leaves out filled in, but for the project's own params.yaml.

    DVC reads that file too, and cannot fill in anything. Raises ParamsError (exit code 2) for a file that is not a
    mapping, and if a default has to be read from the disk and cannot be.
    """
    content = read_mapping(path)
    if _is_read_by_dvc(path):
        return content
    try:
        return complete(content)[0]
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None


def _is_read_by_dvc(path: Path) -> bool:
    return path.resolve() == artefacts.PARAMS.resolve()


def check_content(path: Path, content: Content) -> Params:
    """The params in the completed content of the file `path`; ParamsError (exit code 2) with one line per mistake."""
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        lines = explain(error.errors(), LEFT_OUT if _is_read_by_dvc(path) else None)
        raise ParamsError("\n".join(f"{path}: {line}" for line in lines)) from None
    mistakes = list(check_references(params))
    if mistakes:
        raise ParamsError("\n".join(f"{path}: {mistake}" for mistake in mistakes))
    return in_order(params)


def read_mapping(path: Path) -> Content:
    """What is in a YAML file; ParamsError (exit code 2) if that is not a mapping."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: expected a mapping of keys to values, found {type(content).__name__}")
    return content


def read_yaml(path: Path) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        cure = "; run this from the project's root" if path == artefacts.PARAMS else ""
        raise ParamsError(f"{path}: no such file{cure}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ParamsError(f"{path}: not valid YAML: {problem}") from None


def parse(text: str) -> Any:
    """The content of YAML text; yaml.YAMLError, RecursionError or ValueError for text that is not valid here."""
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)


def compose(text: str) -> yaml.MappingNode:
    """The nodes of valid YAML text that is a mapping, with their positions in it."""
    loader = _StrictLoader(text)
    try:
        return cast(yaml.MappingNode, loader.get_single_node())
    finally:
        loader.dispose()


MOST_NODES = 100_000
"""Nodes of a file with its aliases expanded, through which a small file could grow to gigabytes."""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, tags, too many aliases, and values that DVC, which reads the same file as
    YAML 1.2, would read as something else: 010 is 8 in YAML 1.1 and 10 in 1.2.
    """

    def __init__(self, text: str):
        super().__init__(text)
        self._nodes = 0
        self._sizes: dict[Any, int] = {}

    def compose_document(self) -> Any:
        if (start := self.peek_event()).version:
            raise yaml.composer.ComposerError(None, None, "leave out the %YAML directive", start.start_mark)
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event, is_alias = self.peek_event(), self.check_event(yaml.AliasEvent)
        if not is_alias and event.tag is not None:
            raise yaml.composer.ComposerError(None, None, f"tags ({event.tag}) are not used here", event.start_mark)
        before, node = self._nodes, super().compose_node(parent, index)
        if is_alias:
            self._nodes += self._sizes.get(node, MOST_NODES)  # no size yet: it is inside the node it repeats
            if self._nodes > MOST_NODES:
                problem = f"its aliases expand to more than {MOST_NODES:,} values"
                raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        else:
            self._nodes += 1
            self._sizes[node] = self._nodes - before
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if not node.style:  # neither quoted nor a block
            node.tag = _tag(node)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in (_STR, _MERGE):
                name = key.value if isinstance(key, yaml.ScalarNode) else "of several values"
                raise yaml.constructor.ConstructorError(
                    None, None, f"keys must be strings, found {name}", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            seen.add(key.value)
        return node


_STR, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "float", "merge"))
_YAML_1_2 = {
    _FLOAT: r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+|[-+]?[0-9][0-9_]*\.[0-9_]*|[-+]?\.[0-9_]+([eE][-+][0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "tag:yaml.org,2002:int": r"[-+]?0b[01_]+|[-+]?0o[0-7_]+|[-+]?0x[0-9a-fA-F_]+|[-+][0-9_]+|[0-9][0-9_]*",
    "tag:yaml.org,2002:bool": r"true|True|TRUE|false|False|FALSE",
    "tag:yaml.org,2002:null": r"~|null|Null|NULL|",
}
"""What DVC's parser reads as something other than text, except for dates."""


def _tag(node: yaml.ScalarNode) -> str:
    """The type that a plain scalar has in both YAML 1.1 and 1.2; 1e-2, which is text in 1.1, is meant as a number."""
    if node.tag == _MERGE:
        return _MERGE
    by_1_2 = next((tag for tag, pattern in _YAML_1_2.items() if re.fullmatch(pattern, node.value)), _STR)
    exponent = re.fullmatch(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?[eE][-+]?[0-9]+", node.value)
    leading_zero = by_1_2 != _STR and re.match(r"[-+]?0[0-9_]", node.value)
    if exponent or (node.tag == by_1_2 and not leading_zero):
        return by_1_2
    problem = f"{node.value} is read differently by YAML 1.1 and 1.2: write a plain number, true or false, or quote it"
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
