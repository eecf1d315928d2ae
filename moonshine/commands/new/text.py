"""The experiment as a YAML file that a person can read and change: a comment for every choice."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moonshine.commands.new.choices import Choices
from moonshine.commands.new.found import what_was_found
from moonshine.commands.new.survey import Survey

PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/.()+ ")
"""Characters of scalars that YAML reads as text without quotes, if they begin with a letter and no word of YAML's."""
WIDTH = 110
"""Longest line of a comment, or of a network."""
WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
"""What YAML reads as something else."""


def experiment_text(choices: Choices, survey: Survey, command: str) -> str:
    """The file's content; `command` is what made it."""
    params, why = choices.params, choices.reasons
    dataset, recipe, (folder,) = params["dataset"], params["recipe"], params["machine"]["raw_data"].values()
    (method, settings), *_ = params["methods"].items()
    lines = [
        f"# {params['networks'][_teacher(params)]['arch']} and its students on the images in {folder}. Made by",
        f"#     {command}",
        "# Edit what you like: docs/parameters.md explains every key, `moonshine check` checks the file that",
        f"# `moonshine use {params['experiment']}` has made the current one.",
        f"experiment: {params['experiment']}",
        "# Every network is trained once per seed. [0, 1, 2] takes three times as long and shows what is within noise.",
        f"seeds: {_flow(params['seeds'])}",
        "",
        *(f"# {line}" for line in what_was_found(survey)),
        "dataset:",
        *_entries(dataset, ("name", "source", "labels", "classes", "channels")),
        *(_comment("Held out of each class, because the folder has no split") if "validation_share" in dataset else []),
        *_entries(dataset, ("validation_share",)),
        *(_comment("Photographs that are stored turned are turned upright") if "exif_orientation" in dataset else []),
        *_entries(dataset, ("exif_orientation",)),
        *_comment("Side of the square that networks see" + (f": {why['size']}" if "size" in why else "")),
        *_entries(dataset, ("size",)),
        *_comment("Errors are measured on the central square of images scaled to this shorter side"),
        *_entries(dataset, ("evaluation",)),
        *(_comment(_capital(why["resize"])) if "resize" in dataset else []),
        *_entries(dataset, ("resize",)),
        *_comment(
            "DVC may push shared images to a remote; licensed ones stay on this machine. Swap the lists to change it"
        ),
        *_entries(dataset, ("shared", "licensed")),
        "",
        "recipe:",
        *_comment(f"Passes over the training images: {why['epochs']}"),
        *_entries(recipe, ("epochs", "batch_size")),
        *_comment(f"The learning rate at the start, {why['lr']}; times lr_factor after each of these epochs"),
        *_entries(recipe, ("lr", "lr_steps", "lr_factor", "momentum", "weight_decay")),
        *_comment(
            "Random crops of this share of the area, and mirror images: set flip to false if left and right mean "
            "something"
        ),
        *_entries(recipe, ("augmentation",)),
        *_comment("On a recent GPU, bfloat16 takes about half the time"),
        *_entries(recipe, ("precision", "compile")),
        *_comment(f"CPU threads per training: {why['threads']}"),
        *_entries(recipe, ("threads",)),
        "",
        "# The first is the teacher. In the others, conv is the cheap convolution that replaces each 3x3 convolution.",
        *_comment(*(_capital(why[key]) for key in ("stem", "weights") if key in why), indent=""),
        "networks:",
        *_networks(params["networks"]),
        "",
        f"teacher: {params['teacher']}",
        *_comment("Attention transfer", _capital(why["beta"]), indent=""),
        "methods:",
        f"  {method}: {_flow(settings)}",
        "",
        "fetch: {}",
        f"train: {_flow(params['train'])}",
        "# Networks that begin with the teacher's weights and learn from the labels alone.",
        f"train_from_teacher: {_flow(params['train_from_teacher'])}",
        f"distil: {_flow(params['distil'])}",
        f"distil_more: {_flow(params['distil_more'])}",
        "",
        "titles:",
        *(f"  {row}: {_scalar(title)}" for row, title in params["titles"].items()),
        "",
        "tables:",
        *_tables(params["tables"]),
        "",
        "# The figure of where networks look, at these validation images: git tracks it. With [] it shows none.",
        "attention_maps:",
        *_entries(params["attention_maps"], ("scratch", "distilled", "images")),
        "",
        "# Settings of this machine; they change no result. See docs/parameters.md for device, workers and more.",
        "machine:",
        *_entries(params["machine"], ("raw_data",)),
    ]
    return "\n".join(lines) + "\n"


def _teacher(params: Mapping[str, Any]) -> str:
    return params["teacher"].split("/")[1]


def _networks(networks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line per network, or a line per key if it is long."""
    lines = []
    for name, network in networks.items():
        line = f"  {name}: {_flow(network)}"
        lines += [line] if len(line) <= WIDTH else [f"  {name}:", *_entries(network, list(network), "    ")]
    return lines


def _tables(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = []
    for table in tables:
        first, *others = _entries(table, ("name", "title", "caption"), "    ")
        rows = [f"      - {row}" for row in table["rows"]]
        lines += [f"  - {first.strip()}", *others, "    rows:", *rows, *_entries(table, ("columns",), "    ")]
    return lines


def _entries(section: Mapping[str, Any], keys: Sequence[str], indent: str = "  ") -> list[str]:
    """The keys that the section has, a line each."""
    return [f"{indent}{key}: {_flow(section[key])}" for key in keys if key in section]


def _comment(*sentences: str, indent: str = "  ") -> list[str]:
    start, text = f"{indent}# ", " ".join(f"{each}." for each in sentences)
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=start)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    plain = value[:1].isalpha() or value[:1] == "/"
    plain = plain and PLAIN.issuperset(value) and value == value.strip() and value.lower() not in WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)
