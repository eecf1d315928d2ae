"""ILSVRC2012 without the published archives: as an extracted tree, as Kaggle has it, and as Hugging Face's shards.

- train/<wnid>/<image>.JPEG and val/<wnid>/<image>.JPEG
- ILSVRC/Data/CLS-LOC/train/<wnid>/<image>.JPEG and val/<image>.JPEG, with LOC_val_solution.csv next to ILSVRC/
- data/train-00000-of-00294.parquet and so on, with data/validation-00000-of-00014.parquet

All are listed in the order of the archives: training images by wnid and name, validation images by number. So the same
images give the same prepared files.
"""

import csv
import re
from itertools import pairwise
from pathlib import Path

from moonshine.errors import DataError
from moonshine.preparation.layouts import ImageFile, Layout, list_images, visible
from moonshine.preparation.parquet_shards import find_shards, read_index

KAGGLE = Path("ILSVRC", "Data", "CLS-LOC")
SOLUTION, SYNSETS = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
WNID = re.compile(r"n\d{8}")
TRAIN_NAME = re.compile(r"((n\d{8})_\d+)(?:_(n\d{8}))?\.JPEG")
"""Hugging Face repeats the wnid."""
VALIDATION_NAME = re.compile(r"(ILSVRC2012_val_\d{8})(?:_(n\d{8}))?\.JPEG")


def find_imagenet(root: Path) -> Layout:
    """Recognise how ILSVRC2012 is kept below `root`; no image is read.

    Raises DataError (exit code 3) in one line for what is none of the layouts, or is not whole.
    """
    if not root.is_dir():
        raise DataError(f"{root}: not a folder, or missing")
    if shards := find_shards(root):
        return _sharded(root, shards)
    if (root / KAGGLE / "train").is_dir():
        return _folders(root, root / KAGGLE, "Kaggle's layout", root / SOLUTION)
    if (root / "train").is_dir() and (root / "val").is_dir():
        return _folders(root, root, "train/ and val/, each with a folder per class", None)
    archives = "; its archives must be named by dataset.files" if any(root.glob("ILSVRC2012_*.tar*")) else ""
    raise DataError(
        f"{root}: not ILSVRC2012; needs train/ and val/ with a folder per class, Kaggle's {KAGGLE}, or Parquet shards "
        f"in data/{archives}"
    )


def _folders(root: Path, base: Path, kind: str, solution: Path | None) -> Layout:
    wnids = _wnids(base / "train")
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    total, files, train = 0, dict[str, Path](), list[ImageFile]()
    for wnid, label in label_of.items():
        for path, size in list_images(base / "train" / wnid):
            match = TRAIN_NAME.fullmatch(path.name)
            if not match or match[2] != wnid:
                raise DataError(f"{path}: not an image of {wnid}; remove it")
            train.append(ImageFile(str(path), match[1], label))
            files[path.relative_to(root).as_posix()] = path
            total += size
    labels = _labels_of_solution(solution, label_of) if solution else None
    found = list_images(base / "val") if labels is not None else _validation_in_folders(base / "val", wnids)
    val = list[ImageFile]()
    for path, size in found:
        match = VALIDATION_NAME.fullmatch(path.name)
        if not match:
            raise DataError(f"{path}: not a validation image; remove it")
        if labels is not None and match[1] not in labels:
            raise DataError(f"{solution}: has no {match[1]}, an image in {base / 'val'}; get it again")
        label = label_of[path.parent.name] if labels is None else labels[match[1]]
        val.append(ImageFile(str(path), match[1], label))
        files[path.relative_to(root).as_posix()] = path
        total += size
    if solution:
        files[solution.name] = solution
    return _layout(root, kind, wnids, train, val, total, files)


def _wnids(folder: Path) -> list[str]:
    names = [path.name for path, _ in visible(folder)]
    if strange := [name for name in names if not WNID.fullmatch(name)]:
        raise DataError(f"{folder / strange[0]}: not a class of ILSVRC2012, such as n01440764; remove it")
    return names


def _validation_in_folders(folder: Path, wnids: list[str]) -> list[tuple[Path, int]]:
    if (found := _wnids_or_none(folder)) != wnids:
        odd = sorted(set(wnids).symmetric_difference(found or ()))
        named = f"{odd[0]} is in one of them" if found else "it has no folders of classes"
        raise DataError(f"{folder}: its classes must be those of train/; {named}")
    return [image for wnid in wnids for image in list_images(folder / wnid)]


def _wnids_or_none(folder: Path) -> list[str] | None:
    """The classes of a folder; None for the flat folder of the archive."""
    first = next(visible(folder), None)
    return None if first is None or VALIDATION_NAME.fullmatch(first[0].name) else _wnids(folder)


def _labels_of_solution(path: Path, label_of: dict[str, int]) -> dict[str, int]:
    """Validation image -> label. The first word of PredictionString is the wnid; boxes follow."""
    labels = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                labels[row["ImageId"]] = label_of[row["PredictionString"].split()[0]]
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); it has the labels of the validation images"
        ) from None
    except (csv.Error, UnicodeDecodeError, LookupError, AttributeError) as error:
        raise DataError(f"{path}: not the solution that Kaggle publishes ({error!r}); get it again") from None
    return labels


def _sharded(root: Path, shards: dict[str, list[Path]]) -> Layout:
    if not {"train", "validation"} <= set(shards):
        raise DataError(f"{root}: has shards of {', '.join(sorted(shards))}; needs train and validation")
    total, files, wnids = 0, dict[str, Path](), set[str]()
    images: dict[str, list[ImageFile]] = {"train": [], "validation": []}
    for split, pattern in (("train", TRAIN_NAME), ("validation", VALIDATION_NAME)):
        for shard in shards[split]:
            index = read_index(shard)
            total += index.image_bytes
            files[shard.relative_to(root).as_posix()] = shard
            for row, (name, label) in enumerate(zip(index.paths, index.labels)):
                match = pattern.fullmatch(name or "")
                if not match:
                    raise DataError(f"{shard}: row {row} is named {name!r}, not as an image of ILSVRC2012")
                images[split].append(ImageFile(str(shard), match[1], label, row))
                if split == "train":
                    wnids.add(match[2])
    classes = sorted(wnids)
    for image in images["train"]:
        if not 0 <= image.label < len(classes) or classes[image.label] != image.name.partition("_")[0]:
            raise DataError(
                f"{image.path}: row {image.row}, {image.name}, has the label {image.label} of another class"
            )
    if wrong := next((image for image in images["validation"] if not 0 <= image.label < len(classes)), None):
        raise DataError(f"{wrong.path}: row {wrong.row} has the label {wrong.label}, outside 0..{len(classes) - 1}")
    # shuffled shards are sorted on disk first, which takes room for the larger split again
    return _layout(root, "Parquet shards", classes, images["train"], images["validation"], 2 * total, files)


def _layout(
    root: Path,
    kind: str,
    wnids: list[str],
    train: list[ImageFile],
    val: list[ImageFile],
    total: int,
    files: dict[str, Path],
) -> Layout:
    train.sort(key=lambda image: (image.label, image.name))
    val.sort(key=lambda image: image.name)
    for split, images in (("train", train), ("val", val)):
        if absent := set(range(len(wnids))) - {image.label for image in images}:
            raise DataError(f"{root}: {split} has no image of {wnids[min(absent)]}; get the images again")
        for image, following in pairwise(images):
            if image.name == following.name:
                raise DataError(f"{root}: {split} has {image.name} twice; get the images again")
    synsets = root / SYNSETS
    if synsets.is_file():
        files[SYNSETS] = synsets
    return Layout(kind, wnids, {"train": train, "val": val}, total, files, words=_words(synsets, wnids))


def _words(path: Path, wnids: list[str]) -> list[str] | None:
    """What the classes are called, by label; None without the file."""
    if not path.is_file():
        return None
    try:
        pairs = (line.partition(" ") for line in path.read_text(encoding="utf-8").splitlines())
        words = {wnid: text.strip() for wnid, _, text in pairs}
        return [words[wnid] for wnid in wnids]
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise DataError(f"{path}: not the words of all classes ({error}); get it again, or remove it") from None
