"""The text of a params file with values written in; what its author wrote stays to the letter."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moonshine.errors import ParamsError
from moonshine.params.defaults import Content, Key, complete
from moonshine.params.messages import keys_at
from moonshine.params.read import compose, parse, read_mapping

OVER_LINES = ("tables", "attention_maps")
"""Keys whose defaults are written over several lines."""
ALIAS = re.compile(r"\s*:\s*\*[^\s,\]}]+")
VALUE, COMMENT, LINES = range(3)
"""What is inserted, in the order in which it comes if the place is the same."""


@dataclass(frozen=True)
class _Edit:
    kind: int
    start: int
    end: int
    text: str
    depth: int = 0


@dataclass(frozen=True)
class _Section:
    """A mapping in the text."""

    place: Key
    node: yaml.MappingNode
    braces: yaml.Node | None
    """The outermost value in braces that it is in, or is; None for a mapping of lines."""
    depth_of_braces: int

    def rank(self, name: str) -> int:
        """Where the schema has a key."""
        keys = keys_at(self.place)
        return keys.index(name) if name in keys else -1

    def value(self, name: str) -> yaml.Node | None:
        return next((node for key, node in self.node.value if key.value == name), None)


def full_text(path: Path) -> tuple[str, Content, list[Key]]:
    """The text of a file with what it leaves out, its content, and the keys that were filled in.

    Each line with such a key ends with `# default`; a comment after braces names those within. A file that leaves
    nothing out stays as it is. Raises ParamsError (exit code 2) for a file that is not a mapping, for a default that
    cannot be read from the disk, and if a key cannot be written, for example because only a merge key (`<<`) or an
    alias names its section.
    """
    given = read_mapping(path)
    try:
        content, filled = complete(given)
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None
    text = path.read_text(encoding="utf-8")
    if not filled:
        return text, content, filled
    written = _written(text, content, filled)
    if written is None or parse(written) != content:
        names = ", ".join(".".join(key) for key in filled)
        raise ParamsError(f"{path}: its layout leaves no room for defaults; write them out: {names}")
    return written, content, filled


def with_value(text: str, place: Key, name: str, value: Any) -> str:
    """The text with `name: value` in the mapping at `place`, at its end unless the name is there already.

    Everything else stays to the letter. ValueError if the mapping is not written out in the text.
    """
    section = _find(compose(text), place)
    if section is None:
        raise ValueError(f"{'.'.join(place)} is not written out")
    given, entries = section.value(name), section.node.value
    if given is not None:
        edit = _Edit(VALUE, given.start_mark.index, _end(text, given), _flow(value))
    elif section.node.flow_style:
        end = _entry_end(text, *entries[-1]) if entries else section.node.start_mark.index + 1
        edit = _Edit(VALUE, end, end, f"{', ' if entries else ''}{name}: {_flow(value)}")
    else:
        indent, end = " " * section.node.start_mark.column, _line_end(text, _entry_end(text, *entries[-1]))
        edit = _Edit(LINES, end, end, f"\n{indent}{name}: {_flow(value)}")
    return _applied(text, [edit])


def _written(text: str, content: Content, filled: list[Key]) -> str | None:
    """The text with the keys `filled`; None if one of their sections is not written out."""
    root, edits = compose(text), list[_Edit]()
    done = set[tuple[int, str]]()
    comments: dict[int, list[str]] = {}
    for place in dict.fromkeys(key[:-1] for key in filled):
        section, values = _find(root, place), _at(content, place)
        if section is None:
            return None
        names = [key[-1] for key in filled if key[:-1] == place and (id(section.node), key[-1]) not in done]
        for number, name in enumerate(sorted(names, key=section.rank)):
            done.add((id(section.node), name))  # an alias is this section again
            edits.append(_edit(text, section, name, values[name], is_first=number == 0))
            inside = section.braces or section.value(name)
            if inside is not None:
                within = [".".join([*place, name][section.depth_of_braces :])] if section.braces else []
                comments.setdefault(_line_end(text, _end(text, inside)), []).extend(within)
    for at, labels in comments.items():
        said = f"default{'s' if len(labels) > 1 else ''}: {', '.join(labels)}" if labels else "default"
        edits.append(_Edit(COMMENT, at, at, f"  # {said}"))
    return _applied(text, edits)


def _applied(text: str, edits: Iterable[_Edit]) -> str:
    parts, position = [], 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.kind, -edit.depth)):
        parts += [text[position : edit.start], edit.text]
        position = edit.end
    return "".join([*parts, text[position:]])


def _edit(text: str, section: _Section, name: str, value: Any, is_first: bool) -> _Edit:
    given = section.value(name)
    if given is not None:  # a null
        start, end = given.start_mark.index, given.end_mark.index
        return _Edit(VALUE, start, end, _flow(value) if end > start else f" {_flow(value)}")
    before = [entry for entry in section.node.value if section.rank(entry[0].value) < section.rank(name)]
    end = max((_entry_end(text, *entry) for entry in before), default=None)
    if section.node.flow_style:
        entry = f"{name}: {_flow(value)}"
        if end is not None:
            return _Edit(VALUE, end, end, f", {entry}")
        start = section.node.start_mark.index + 1
        if section.node.value:
            return _Edit(VALUE, start, start, f"{entry}, ")
        return _Edit(VALUE, start, start, entry if is_first else f", {entry}")  # {} gets several in turn
    indent, lines = " " * section.node.start_mark.column, _lines(name, value)
    if end is None:
        start = section.node.start_mark.index
        return _Edit(LINES, start, start, "".join(f"{line}\n{indent}" for line in lines))
    end = _line_end(text, end)
    return _Edit(LINES, end, end, "".join(f"\n{indent}{line}" for line in lines), depth=len(section.place))


def _lines(name: str, value: Any) -> list[str]:
    if name not in OVER_LINES:
        return [f"{name}: {_flow(value)}  # default"]
    dumped = yaml.safe_dump(value, default_flow_style=None, sort_keys=False, allow_unicode=True, width=10**9)
    if isinstance(value, dict):
        dumped = "".join(f"{key}: {_flow(each)}\n" for key, each in value.items())
    return [f"{name}:  # default", *(f"  {line}" for line in dumped.splitlines())]


def _flow(value: Any) -> str:
    """On one line."""
    dumped = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return dumped.removesuffix("...\n").strip()


def _find(root: yaml.MappingNode, place: Key) -> _Section | None:
    node, braces, depth_of_braces = root, root if root.flow_style else None, 0
    for depth, name in enumerate(place, start=1):
        found = next((value for key, value in node.value if key.value == name), None)
        if not isinstance(found, yaml.MappingNode):
            return None
        node = found
        if braces is None and node.flow_style:
            braces, depth_of_braces = node, depth
    return _Section(place, node, braces, depth_of_braces)


def _at(content: Content, place: Key) -> Content:
    for name in place:
        content = content[name]
    return content


def _entry_end(text: str, key: yaml.Node, value: yaml.Node) -> int:
    if value.start_mark.index < key.end_mark.index and (alias := ALIAS.match(text, key.end_mark.index)):
        return alias.end()
    return _end(text, value)


def _end(text: str, node: yaml.Node) -> int:
    """Where a value's own text ends; comments and blank lines may follow."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _entry_end(text, *node.value[-1])
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _end(text, node.value[-1])
    end = node.end_mark.index
    return len(text[:end].rstrip()) if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") else end


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end
