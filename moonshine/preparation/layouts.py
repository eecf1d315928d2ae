"""How people keep images on disk, recognised without reading an image.

The layouts of the source `folder` are, in the order in which they are looked for:

- a CSV file of paths and labels, if params.yaml names one;
- Parquet shards as Hugging Face stores them, in data/ or next to each other;
- train/ and a folder for validation, each with a folder per class;
- a folder per class without a split.

Without a split, a share of each class is held out for validation. Which images these are depends on their names alone,
so images that are added to other classes move none, and images that are added to a class move few of it.

Labels number the classes in the order of their names, in shards in the order of the schema. Images are in the order of
labels and then names, in shards in the order of rows. Hidden files and those that Windows leaves in folders of pictures
are ignored; every other file in a class's folder is an image.
"""

import csv
import hashlib
import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from moonshine.errors import DataError
from moonshine.preparation.parquet_shards import find_shards, read_index
from moonshine.runtime.progress import printable

VALIDATION_NAMES = ("val", "valid", "validation", "test")
"""What the validation split may be called; `test` is used only if there is none of the others."""
VALIDATION_SHARE = 0.2
"""Held out of each class if there is no split and params.yaml has no share."""
SPLIT_SEED = 0
LEFT_BY_WINDOWS = ("thumbs.db", "desktop.ini")
NOT_ON_WINDOWS = re.compile(r'[<>:"|?*\\]|[. ]$|^(con|prn|aux|nul|com[1-9]|lpt[1-9])(\.|$)', re.IGNORECASE)
"""What the name of a folder must not have on Windows."""
NAMED = 3
"""Missing files that are named; the rest are only counted."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """Where one image is, and what it shows."""

    path: str
    """The file that has it: an image, or a Parquet shard."""
    name: str
    """Unique within the split, with / on every system."""
    label: int
    row: int | None = None
    """Its row in the shard, counted from 0."""


@dataclass(frozen=True)
class Layout:
    """The images of a folder, listed; none is read."""

    kind: str
    """What was found, in words."""
    classes: list[str]
    """Names by label."""
    images: dict[str, list[ImageFile]]
    """For "train" and "val", in the order in which they are prepared."""
    bytes: int
    """Total size of the images."""
    files: dict[str, Path]
    """Every file that the images and labels come from, by its path relative to the folder."""
    held_out: float | None = None
    """Share of each class held out for validation; None if the folder has a validation split."""
    words: list[str] | None = None
    """What the classes are called, by label, if their names are identifiers."""

    def counts(self, split: str) -> list[int]:
        """Images of each class, by label."""
        found = Counter(image.label for image in self.images[split])
        return [found[label] for label in range(len(self.classes))]


@dataclass(frozen=True)
class _Found:
    """Images by split, or all together if they have none; label and path relative to the root are in each."""

    kind: str
    classes: list[str]
    images: dict[str, list[ImageFile]]
    bytes: int
    files: dict[str, Path]


def find_layout(
    root: Path, validation_share: float | None = None, seed: int = SPLIT_SEED, labels: str | None = None
) -> Layout:
    """Recognise how images are kept below `root`; `labels` is the CSV file, relative to it.

    `validation_share` of each class, VALIDATION_SHARE if None, is held out if there is no validation split.

    Raises DataError (exit code 3) in one line: for what is none of the layouts, for fewer than two classes, for a class
    that a split lacks or that cannot be split, for files that cannot be images, for names of classes that cannot be
    names of folders on another system, and for a share in addition to a validation split.
    """
    if not root.is_dir():
        raise DataError(f"{root}: not a folder, or missing")
    if labels is not None:
        found = _labelled(root, labels)
    elif shards := find_shards(root):
        found = _sharded(root, shards)
    else:
        found = _folders(root)
    if len(found.classes) < 2:
        raise DataError(f"{root}: {_too_few(root, found, labels)}")
    if set(found.images) == {"train", "val"}:
        if validation_share is not None:
            raise DataError(f"{root}: has a validation split of its own; leave out dataset.validation_share")
        _require_every_class(root, found)
        return Layout(found.kind, found.classes, found.images, found.bytes, found.files)
    (images,) = found.images.values()
    share = VALIDATION_SHARE if validation_share is None else validation_share
    split = _held_out(root, found.classes, images, share, seed)
    return Layout(found.kind, found.classes, split, found.bytes, found.files, share)


def _too_few(root: Path, found: _Found, labels: str | None) -> str:
    table = None if labels else next((path.name for path, _ in visible(root) if path.suffix.lower() == ".csv"), None)
    if table:
        return (
            f"has no folders of two classes, but {table}; if that has the columns path and label, write "
            f"`labels: {table}` into dataset (for `moonshine new`: --labels {table})"
        )
    if not found.classes and (loose := _loose_file(root)):
        return (
            f"{loose} is in no class's folder; move each image into a folder named after its class, or list paths and "
            "labels in a CSV file and name that in dataset.labels"
        )
    if not found.classes:
        return (
            "no images found; needs train/ and val/ with a folder per class, a folder per class, Parquet shards such "
            "as data/train-00000-of-00001.parquet, or a CSV file named by dataset.labels"
        )
    only = root / found.classes[0]
    inside = only.is_dir() and any(path.is_dir() for path in only.iterdir())
    hint = f"; if the folders of classes are in {only}, name that in machine.raw_data.folder" if inside else ""
    return f"has only one class, {found.classes[0]!r}; a classifier needs two{hint}"


def _loose_file(root: Path) -> str | None:
    """A file where there should be folders of classes, relative to the root."""
    for folder in (root, root / "train"):
        for path, status in visible(folder) if folder.is_dir() else ():
            if stat.S_ISREG(status.st_mode):
                return path.relative_to(root).as_posix()
    return None


def _require_every_class(root: Path, found: _Found) -> None:
    for split, images in found.images.items():
        if absent := set(range(len(found.classes))) - {image.label for image in images}:
            raise DataError(
                f"{root}: {split} has no image of {found.classes[min(absent)]!r}; every class needs some in both splits"
            )


def _held_out(
    root: Path, classes: list[str], images: list[ImageFile], share: float, seed: int
) -> dict[str, list[ImageFile]]:
    """Split stratified by class; both splits keep the order of the images."""
    by_label: dict[int, list[int]] = {label: [] for label in range(len(classes))}
    for index, image in enumerate(images):
        by_label[image.label].append(index)
    chosen = set[int]()
    for label, indices in by_label.items():
        name = classes[label]
        if len(indices) < 2:
            count = "one image" if indices else "no image"
            raise DataError(f"{root}: class {name!r} has {count}; it needs two, for training and for validation")
        indices.sort(key=lambda index: hashlib.sha256(f"{seed}/{name}/{images[index].name}".encode()).digest())
        chosen.update(indices[: min(max(round(share * len(indices)), 1), len(indices) - 1)])
    return {
        "train": [image for index, image in enumerate(images) if index not in chosen],
        "val": [image for index, image in enumerate(images) if index in chosen],
    }


# Folders


def _folders(root: Path) -> _Found:
    present = {path.name for path, status in visible(root) if stat.S_ISDIR(status.st_mode)}
    validation = the_validation_split(present, root)
    if "train" in present and validation is None:
        raise DataError(
            f"{root}: has train/ but no val/ (or {', '.join(VALIDATION_NAMES[1:])}); to hold out a share of train/, "
            f"name {root / 'train'} in machine.raw_data.folder"
        )
    if validation is not None and "train" not in present and validation != "test":
        raise DataError(f"{root}: has {validation}/ but no train/")
    if "train" not in present or validation is None:
        return _class_folders("a folder per class", root, {"all": root})
    kind = f"train/ and {validation}/, each with a folder per class"
    return _class_folders(kind, root, {"train": root / "train", "val": root / validation})


def the_validation_split(present: Iterable[str], where: Path) -> str | None:
    """Which of these names the validation split has; DataError (exit code 3) if several may be it."""
    several = [name for name in VALIDATION_NAMES if name in set(present)]
    certain = [name for name in several if name != "test"]
    if len(certain) > 1:
        raise DataError(f"{where}: has both {certain[0]} and {certain[1]}; leave one of them for validation")
    return next(iter(certain or several), None)


def _class_folders(kind: str, root: Path, splits: dict[str, Path]) -> _Found:
    names = {split: _classes(folder) for split, folder in splits.items()}
    classes = names["train" if "train" in names else "all"]
    if "val" in names:
        _require_same_classes(splits, names)
    if len(classes) < 2:
        return _Found(kind, classes, {split: [] for split in splits}, 0, {})
    images: dict[str, list[ImageFile]] = {split: [] for split in splits}
    total, files = 0, {}
    for split, folder in splits.items():
        for label, name in enumerate(classes):
            of_class = list_images(folder / name)
            if not of_class:
                raise DataError(f"{folder / name}: no image in it; every class needs some")
            for path, size in of_class:
                images[split].append(ImageFile(str(path), f"{name}/{path.name}", label))
                files[path.relative_to(root).as_posix()] = path
                total += size
    return _Found(kind, classes, images, total, files)


def _require_same_classes(splits: dict[str, Path], names: dict[str, list[str]]) -> None:
    for split, other in (("train", "val"), ("val", "train")):
        if absent := sorted(set(names[other]) - set(names[split])):
            why = _spelt_otherwise(absent[0], names[split]) or f"{splits[other]} has; both need the same ones"
            raise DataError(f"{splits[split]}: has no class {absent[0]!r}, {why}")


def _spelt_otherwise(name: str, others: list[str]) -> str | None:
    """How two names that look alike differ: macOS writes accents as separate characters."""
    for other in others:
        if normalize("NFC", other) == normalize("NFC", name):
            return f"but {other!a}, which differs from {name!a} only in Unicode normalisation; rename one of them"
        if normalize("NFC", other).casefold() == normalize("NFC", name).casefold():
            return f"but {other!r}, which differs only in upper and lower case; rename one of them"
    return None


def _classes(folder: Path) -> list[str]:
    """The folders in a folder, by name; DataError for names that are not possible everywhere."""
    names = [path.name for path, status in visible(folder) if stat.S_ISDIR(status.st_mode)]
    for position, name in enumerate(names):
        if NOT_ON_WINDOWS.search(name):
            raise DataError(f"{folder / name}: not a name that a folder can have on Windows; rename it")
        if why := _spelt_otherwise(name, names[:position]):
            raise DataError(f"{folder}: has the class {name!r}, {why}")
    return names


def list_images(folder: Path) -> list[tuple[Path, int]]:
    """The images of a class by name, and their sizes in bytes; DataError (exit code 3) for what cannot be one."""
    found = []
    for path, status in visible(folder):
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
            raise DataError(f"{path}: not a regular file; remove it")
        found.append((path, status.st_size))
    return found


def visible(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The visible entries of a folder by name, with links followed; DataError (exit code 3) for unusable names."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None
    for path in paths:
        try:
            path.name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{str(path)!r}: its name is not UTF-8; rename it") from None
        if printable(path.name) != path.name:
            raise DataError(f"{printable(str(path))}: its name has control characters; rename it")
        if path.name.lower() in LEFT_BY_WINDOWS:
            continue
        try:
            yield path, path.stat()
        except OSError as error:
            what = f"a link to {path.readlink()}, which" if path.is_symlink() else "it"
            raise DataError(f"{path}: {what} cannot be read ({error.strerror}); fix or remove it") from None


# A CSV file


@dataclass(frozen=True)
class _Row:
    path: str
    label: str
    split: str


def _labelled(root: Path, labels: str) -> _Found:
    table = root / labels
    rows = _read_rows(table)
    if not rows:
        raise DataError(f"{table}: has no rows; needs one for each image")
    _require_files(root, table, rows)
    present = {row.split for row in rows}
    validation = the_validation_split(present, table)
    if present != {""} and ("train" not in present or validation is None):
        raise DataError(f"{table}: split has {', '.join(sorted(present))}; needs train and val")
    splits = {"all": ""} if validation is None else {"train": "train", "val": validation}
    used = [row for row in rows if row.split in splits.values()]
    classes = sorted({row.label for row in used})
    label_of = {name: label for label, name in enumerate(classes)}
    images = {
        split: sorted(
            (ImageFile(str(root / row.path), row.path, label_of[row.label]) for row in used if row.split == name),
            key=lambda image: (image.label, image.name),
        )
        for split, name in splits.items()
    }
    files = {row.path: root / row.path for row in used}
    total = sum(path.stat().st_size for path in files.values())
    return _Found(f"labels in {labels}", classes, images, total, {**files, labels: table})


def _read_rows(table: Path) -> list[_Row]:
    rows, seen = [], set()
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            if not {"path", "label"} <= set(columns):
                raise DataError(f"{table}: its columns are {', '.join(columns)}; needs path and label, may have split")
            for record in reader:
                row = _Row(*((record.get(key) or "").strip() for key in ("path", "label", "split")))
                if problem := _wrong_in(row, "split" in columns):
                    raise DataError(f"{table}: line {reader.line_num}: {problem}")
                row = _Row(posixpath.normpath(row.path), row.label, row.split)
                if row.path in seen:
                    raise DataError(f"{table}: line {reader.line_num}: {row.path} is in it twice")
                seen.add(row.path)
                rows.append(row)
    except OSError as error:
        raise DataError(f"{table}: cannot be read ({error.strerror}); dataset.labels names it") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{table}: not a CSV file in UTF-8 ({error})") from None
    return rows


def _wrong_in(row: _Row, has_split: bool) -> str | None:
    if not row.path or not row.label:
        return "path and label must not be empty"
    if printable(row.path + row.label) != row.path + row.label:
        return "path and label must not have control characters"
    if row.path.startswith("/") or posixpath.normpath(row.path).split("/")[0] in ("..", "."):
        return f"{row.path} is not a file below the folder of images"
    if has_split and row.split not in ("train", *VALIDATION_NAMES):
        return f"split is {row.split!r}; must be one of train, {', '.join(VALIDATION_NAMES)}"
    return None


def _require_files(root: Path, table: Path, rows: list[_Row]) -> None:
    absent = [row.path for row in rows if not os.path.isfile(root / row.path)]  # noqa: PTH113 (too long: an OSError)
    if absent:
        more = f" and {len(absent) - NAMED:,} more" if len(absent) > NAMED else ""
        raise DataError(f"{table}: names files that are missing: {', '.join(absent[:NAMED])}{more}")


# Parquet shards


def _sharded(root: Path, shards: dict[str, list[Path]]) -> _Found:
    first = next(iter(shards.values()))[0]
    validation = the_validation_split(shards, first.parent)
    if "train" not in shards:
        raise DataError(f"{first.parent}: has shards of {', '.join(sorted(shards))}, but none of train")
    splits = {"all": "train"} if validation is None else {"train": "train", "val": validation}
    indices = {path: read_index(path) for name in splits.values() for path in shards[name]}
    names = indices[shards["train"][0]].names
    for path, index in indices.items():
        if index.names != names:
            raise DataError(f"{path}: its names of classes are not those of {shards['train'][0]}; get it again")
    labels = [label for index in indices.values() for label in index.labels]
    if names is None and (highest := max(labels, default=-1)) >= len(labels):  # which could need any memory
        raise DataError(f"{first.parent}: has the label {highest}, but {len(labels)} images; every class needs some")
    classes = names or [str(label) for label in range(max(labels, default=-1) + 1)]
    for path, index in indices.items():
        if wrong := [label for label in index.labels if not 0 <= label < len(classes)]:
            raise DataError(f"{path}: has the label {wrong[0]}, outside 0..{len(classes) - 1}")
    if bad := next((name for name in classes if not name.strip() or printable(name) != name), None):
        raise DataError(f"{first}: the class name {bad!r} is blank or has control characters")
    if repeated := next((name for name, count in Counter(classes).items() if count > 1), None):
        raise DataError(f"{first}: two classes are named {repeated!r}")
    images = {}
    for split, name in splits.items():
        paths = [path for shard in shards[name] for path in indices[shard].paths]
        unique = None not in paths and len(set(paths)) == len(paths)
        images[split] = [
            ImageFile(str(shard), str(path) if unique else f"{shard.stem}/{row}", label, row)
            for shard in shards[name]
            for row, (path, label) in enumerate(zip(indices[shard].paths, indices[shard].labels))
        ]
    files = {path.relative_to(root).as_posix(): path for path in indices}
    return _Found("Parquet shards", classes, images, sum(index.image_bytes for index in indices.values()), files)
