"""The keys that a file in experiments/ may leave out, and what they then are.

DVC cannot fill in a key, so params.yaml has all of them: `moonshine use` writes them there. Values follow from the rest
of the file; only numbers of classes, positions of images and checksums are read from the disk.
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moonshine.errors import ParamsError
from moonshine.models.attention_layers import attention_layers_of
from moonshine.params.schema import CLASSES, GREY, JPEG_SOURCES, TEACHER
from moonshine.project.rows import Row, model_name, parse_model
from moonshine.runtime.files import sha256

Content = dict[str, Any]
"""A mapping read from YAML, not yet checked: any value may be missing or of the wrong type."""
Key = tuple[str, ...]
"""A path such as ("recipe", "threads")."""
Rule = Callable[[Content, Content], Any]
"""Section, whole file -> the value of a key; None if it has no default there."""

PUBLISHED_CLASSES = {**CLASSES, "cifar10": 10, "cifar100": 100, "imagenet": 1000}
LICENSED = ("folder", "imagenet")
"""Sources that are taken to be licensed: own images are, until their owner says otherwise."""
SHOWN_IMAGES = {"imagenette": [0, 500, 1000, 1500]}
"""Validation images of several classes, for sources whose images are ordered by class."""
FETCHED = ("fetch", "fetch_teacher")
"""Keys of the networks with published weights."""
LEFT_BY_WINDOWS = ("thumbs.db", "desktop.ini")
VALIDATION_NAMES = ("val", "valid", "validation", "test")
MOST_SHOWN = 6
"""Images that are drawn by default."""


def complete(content: Content) -> tuple[Content, list[Key]]:
    """A copy with every key that may be left out, and the keys that were filled in. A null counts as left out.

    Raises ParamsError (exit code 2) if something has to be read from the disk for a default and cannot be.
    """
    params = copy.deepcopy(content)
    filled = []
    for place, rules in RULES.items():
        for path, section in _sections(params, place):
            for key, rule in rules.items():
                if section.get(key) is None and (value := _by(rule, path, section, params)) is not None:
                    section[key] = value
                    filled.append((*path, key))
    return params, filled


def _by(rule: Rule, path: Key, section: Content, params: Content) -> Any:
    """What the rule gives; its errors name a key of the section, to which the section's place is added."""
    try:
        return rule(section, params)
    except ParamsError as error:
        raise ParamsError(".".join([*path, str(error)])) from None


def may_be_left_out(key: Sequence[Any]) -> bool:
    """Whether a file in experiments/ may leave out this key."""
    return any(
        len(place) == len(key) - 1 and all(part in ("*", given) for part, given in zip(place, key)) and key[-1] in rules
        for place, rules in RULES.items()
    )


def _sections(params: Content, place: Key) -> Iterator[tuple[Key, Content]]:
    """The mappings at a place, in which `*` stands for every name."""
    found: list[tuple[Key, Any]] = [((), params)]
    for part in place:
        found = [
            ((*path, name), section[name])
            for path, section in found
            if isinstance(section, dict)
            for name in (section if part == "*" else [part])
            if name in section
        ]
    yield from ((path, section) for path, section in found if isinstance(section, dict))


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list | dict) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    """0 for what is not a count."""
    return value if isinstance(value, int) and 0 < value < 2**31 else 0


# dataset


def _dataset_name(dataset: Content, params: Content) -> Any:
    return next(iter([*_names(dataset.get("shared")), *_names(dataset.get("licensed"))]), params.get("experiment"))


def _channels(dataset: Content, params: Content) -> int | None:
    return None if "source" not in dataset else 1 if dataset["source"] in GREY else 3


def _classes(dataset: Content, params: Content) -> int | None:
    if dataset.get("source") != "folder":
        return PUBLISHED_CLASSES.get(str(dataset.get("source")))
    root = _raw_folder(params)
    if root is None:
        raise ParamsError("classes: missing, and so is machine.raw_data.folder, whose class folders would be counted")
    if dataset.get("labels") is not None:
        raise ParamsError("classes: missing key; folders of classes are counted, labels in a CSV file are not")
    folder = root / "train" if (root / "train").is_dir() else root
    try:
        count = len(_visible_folders(folder))
    except OSError as error:
        raise ParamsError(f"classes: missing, and {folder} cannot be listed to count them ({error.strerror})") from None
    if not count or any(folder.glob("*.parquet")) or any(root.glob("data/*.parquet")):
        raise ParamsError(f"classes: missing key; {folder} has no folders of classes that could be counted")
    return count


def _raw_folder(params: Content) -> Path | None:
    return _path(_mapping(_mapping(params.get("machine")).get("raw_data")).get("folder"))


def _path(text: Any) -> Path | None:
    """None for what the schema refuses as a path."""
    if not isinstance(text, str) or not text or not text.isprintable():
        return None
    return Path(os.path.expanduser(text))  # noqa: PTH111 (Path.expanduser raises an error for an unknown user)


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _evaluation(dataset: Content, params: Content) -> Content | None:
    """Images are scaled to 256 pixels for a crop of 224, and in this ratio for others."""
    if dataset.get("source") not in JPEG_SOURCES or not _count(dataset.get("size")):
        return None
    return {"resize": round(dataset["size"] * 256 / 224)}


def _shared(dataset: Content, params: Content) -> list[str] | None:
    licensed = dataset.get("licensed")
    if licensed is None:
        licensed = [dataset["name"]] if dataset.get("source") in LICENSED and "name" in dataset else []
    return [] if licensed else _names([dataset.get("name")])


def _licensed(dataset: Content, params: Content) -> list[str]:
    return [] if dataset["shared"] else _names([dataset.get("name")])


# recipe


def _lr_steps(recipe: Content, params: Content) -> list[int] | None:
    """After 30, 60 and 90 % of the epochs, as on ImageNet; none for schedules without steps."""
    if recipe.get("schedule") in ("cosine", "linear"):
        return []
    if not (epochs := _count(recipe.get("epochs"))):
        return None
    return sorted({epochs * tenths // 10 for tenths in (3, 6, 9)} - {0, epochs})


def _augmentation(recipe: Content, params: Content) -> Content:
    filled = {key: rule({}, params) for key, rule in (("pad", _pad), ("flip", _flip), ("crop_scale", _crop_scale))}
    return {key: value for key, value in filled.items() if value is not None}


def _pad(augmentation: Content, params: Content) -> int | None:
    """4 pixels for images of 32, as on CIFAR."""
    dataset = _mapping(params.get("dataset"))
    return None if dataset.get("source") in JPEG_SOURCES else _count(dataset.get("size")) // 8


def _flip(augmentation: Content, params: Content) -> bool:
    """A digit's mirror image is another sign."""
    return _mapping(params.get("dataset")).get("source") != "digits"


def _crop_scale(augmentation: Content, params: Content) -> list[float] | None:
    return [0.08, 1.0] if _mapping(params.get("dataset")).get("source") in JPEG_SOURCES else None


# networks, methods and rows


def _groups(method: Content, params: Content) -> list[int] | None:
    """All of the teacher's, for methods that transfer attention."""
    if method.get("beta") is None:
        return None
    network = _mapping(_mapping(params.get("networks")).get(_network(params.get("teacher"))))
    if not isinstance(network.get("arch"), str) or not isinstance(network.get("points", []), list):
        return None
    try:
        return [*range(1, 1 + len(attention_layers_of(network)))] or None
    except KeyError:  # an unknown architecture, which the schema refuses
        return None


def _network(model: Any) -> str:
    """The network of a model's name; empty if there is none."""
    try:
        return parse_model(model)[0].network
    except (TypeError, ValueError, AttributeError):
        return ""


def _sha256(checkpoint: Content, params: Content) -> str | None:
    """Of a file on this machine."""
    path = _path(checkpoint.get("url"))
    if path is None or ":" in str(path):  # an address
        return None
    if not path.is_file():
        raise ParamsError(f"url: {path}: no such file; its sha256 is missing and would be computed")
    try:
        return sha256(path)
    except OSError as error:
        raise ParamsError(f"url: {path}: cannot be read to compute its sha256 ({error.strerror})") from None


def _train(section: Content, params: Content) -> list[str]:
    others = [name for key in (*FETCHED, "train_from_teacher") for name in _names(params.get(key))]
    return [name for name in _names(params.get("networks")) if name not in others]


def _train_from_teacher(section: Content, params: Content) -> list[str]:
    networks = _mapping(params.get("networks"))
    beginning = [name for name in _names(networks) if _mapping(networks[name]).get("init") == TEACHER]
    others = [name for key in (*FETCHED, "train") for name in _names(params.get(key))]
    return [name for name in beginning if name not in others]


def _distil(section: Content, params: Content) -> Content:
    return {key: rule({}, params) for key, rule in RULES["distil",].items()}


def _students(distil: Content, params: Content) -> list[str]:
    if not _methods(distil, params):
        return []
    others = [_network(params.get("teacher")), *_names(params.get("fetch_teacher"))]
    return [name for name in _names(params.get("networks")) if name not in others]


def _methods(distil: Content, params: Content) -> list[str]:
    more = _names(_mapping(params.get("distil_more")).get("methods"))
    given = distil.get("methods")
    return [name for name in _names(params.get("methods")) if name not in more] if given is None else _names(given)


def _rows(params: Content) -> list[Row]:
    """As Params.evaluated_rows."""
    groups = [_mapping(params.get(key)) for key in ("distil", "distil_more")]
    return [
        *(Row("fetch", name) for name in _names(params.get("fetch"))),
        *(Row("train", name) for key in ("train", "train_from_teacher") for name in _names(params.get(key))),
        *(
            Row("distil", name, method)
            for group in groups
            for method in _names(group.get("methods"))
            for name in _names(group.get("networks"))
        ),
    ]


# what the results page shows


def _tables(section: Content, params: Content) -> list[Content]:
    has_top5 = _count(_mapping(params.get("dataset")).get("classes")) > 5
    rows = _rows(params)
    is_distilled = any(row.stage == "distil" for row in rows)
    return [
        {
            "name": "all",
            "title": "Results",
            "caption": "All networks" + (f"; students learned from {params.get('teacher')}." if is_distilled else "."),
            "rows": [row.name for row in rows],
            "columns": ["parameters", "macs", "top1", *(["top5"] if has_top5 else [])],
        }
    ]


def _attention_maps(section: Content, params: Content) -> Content:
    filled: Content = {}
    for key, rule in RULES["attention_maps",].items():
        filled[key] = rule(filled, params)
    return {key: filled[key] for key in ("scratch", "distilled", "images")}


def _distilled(shown: Content, params: Content) -> Any:
    """A student that was also trained without a teacher, if there is one, cheap and with attention transfer."""
    rows = _rows(params)
    distilled = [row for row in rows if row.stage == "distil"]
    if not distilled:
        return params.get("teacher")
    alone = {row.network for row in rows if row.stage != "distil"}
    networks, methods = _mapping(params.get("networks")), _mapping(params.get("methods"))

    def preference(row: Row) -> tuple[bool, bool, bool]:
        network = _mapping(networks.get(row.network))
        is_cheap = network.get("conv") not in (None, "S") or network.get("convs") is not None
        return row.network in alone, is_cheap, _mapping(methods.get(str(row.method))).get("groups") is not None

    return model_name(max(distilled, key=preference), _first_seed(params))


def _scratch(shown: Content, params: Content) -> Any:
    """The same network without a teacher; the teacher if it was not trained alone."""
    network = _network(shown.get("distilled"))
    alone = [row for row in _rows(params) if row.network == network and row.stage != "distil"]
    if not alone:
        return params.get("teacher")
    return model_name(alone[-1], _first_seed(params) if alone[-1].stage == "train" else None)


def _first_seed(params: Content) -> Any:
    seeds = params.get("seeds")
    return seeds[0] if isinstance(seeds, list) and seeds else 0


def _shown_images(shown: Content, params: Content) -> list[int]:
    """None of licensed images, because the results page would publish them; otherwise some of different classes."""
    dataset = _mapping(params.get("dataset"))
    if dataset.get("licensed"):
        return []
    root = _raw_folder(params)
    if dataset.get("source") == "folder" and root is not None:
        split = next((root / name for name in VALIDATION_NAMES if (root / name).is_dir()), None)
        return _first_of_each_class(split) if split and (root / "train").is_dir() else [0]
    return SHOWN_IMAGES.get(str(dataset.get("source")), [*range(MOST_SHOWN)])


def _first_of_each_class(split: Path) -> list[int]:
    """Positions in the prepared data, which has the images in the order of their classes."""
    positions, position = [], 0
    try:
        for folder in _visible_folders(split)[:MOST_SHOWN]:
            positions.append(position)
            names = [path.name for path in folder.iterdir()]
            position += sum(not name.startswith(".") and name.lower() not in LEFT_BY_WINDOWS for name in names)
    except OSError:  # `prepare` explains what is wrong with the folder
        return [0]
    return positions or [0]


QUANTISE: dict[str, Rule] = {
    "images": lambda section, params: 256,
    "per_tensor": lambda section, params: False,
    "reduce_range": lambda section, params: False,
}
RULES: dict[Key, dict[str, Rule]] = {
    ("dataset",): {
        "name": _dataset_name,
        "classes": _classes,
        "channels": _channels,
        "evaluation": _evaluation,
        "shared": _shared,
        "licensed": _licensed,
    },
    ("recipe",): {
        "lr_steps": _lr_steps,
        "lr_factor": lambda recipe, params: 0.1,
        "momentum": lambda recipe, params: 0.9,
        "weight_decay": lambda recipe, params: 1e-4,
        "augmentation": _augmentation,
        "precision": lambda recipe, params: "float32",
        "compile": lambda recipe, params: False,
        "threads": lambda recipe, params: 1,
    },
    ("recipe", "augmentation"): {"flip": _flip, "crop_scale": _crop_scale},
    ("methods", "*"): {"groups": _groups},
    ("methods", "*", "dist"): {
        "beta": lambda dist, params: 2.0,
        "gamma": lambda dist, params: 2.0,
        "temperature": lambda dist, params: 1.0,
    },
    ("fetch", "*"): {"sha256": _sha256},
    ("fetch_teacher", "*"): {"sha256": _sha256},
    ("networks", "*", "init"): {"sha256": _sha256},
    ("search", "*"): {
        "tolerance": lambda search, params: 0.025,
        "candidates": lambda search, params: 1000,
        "criterion": lambda search, params: "fisher",
        "seed": lambda search, params: 0,
        "batch": lambda search, params: 128,
    },
    ("distil",): {"networks": _students, "methods": _methods},
    (): {
        "seeds": lambda section, params: [0, 1, 2],
        "methods": lambda section, params: {},
        "fetch": lambda section, params: {},
        "train_from_teacher": _train_from_teacher,
        "train": _train,
        "distil": _distil,
        "distil_more": lambda section, params: {"networks": [], "methods": []},
        "titles": lambda section, params: {},
        "tables": _tables,
        "attention_maps": _attention_maps,
    },
    ("quantise", "*"): QUANTISE,
    ("quantise_fetch", "*"): QUANTISE,
    ("attention_maps",): {"distilled": _distilled, "scratch": _scratch, "images": _shown_images},
}
"""Place -> key -> its default, in the order in which they build on one another."""
