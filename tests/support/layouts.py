"""The same pictures on disk in every layout that people have."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.imagenet_archives import Archives, jpeg

CLASSES = ["bird", "cat", "dog"]
Pictures = dict[str, bytes]
"""Path from the folder of classes -> encoded image."""


def pictures(first: int = 0, each: int = 6) -> Pictures:
    """Images of each class, all different: JPEG in RGB, CMYK, grey and turned; PNG named as JPEG; and portraits."""
    kinds = ("RGB", "CMYK", "EXIF rotated", "PNG", "portrait", "grey")
    found = {}
    for number, name in enumerate(CLASSES):
        for index in range(each):
            seed, kind = first + number * each + index, kinds[index % len(kinds)]
            portrait = {"width": 30, "height": 44} if kind == "portrait" else {}
            found[f"{name}/{index}.jpg"] = jpeg(seed, kind="RGB" if portrait else kind, **portrait)
    return found


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_table(path: Path, rows: Iterable[tuple[str, ...]], columns: tuple[str, ...] = ("path", "label")) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def write_shards(
    folder: Path,
    split: str,
    rows: list[tuple[str | None, bytes, int]],
    names: list[str] | None,
    count: int = 2,
    group: int = 4,
) -> None:
    """Rows of path, content and label in `count` shards, in groups of `group` rows, as the datasets library writes."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for number in range(count):
        part = rows[number * len(rows) // count : (number + 1) * len(rows) // count]
        images = pa.array([{"bytes": content, "path": path} for path, content, _ in part], image)
        table = pa.table({"image": images, "label": pa.array([label for *_, label in part], pa.int64())})
        path = folder / "data" / f"{split}-{number:05d}-of-{count:05d}.parquet"
        pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=group)


def rows_of(contents: Pictures) -> list[tuple[str | None, bytes, int]]:
    return [(name, content, CLASSES.index(name.split("/")[0])) for name, content in contents.items()]


def write_imagenet_tree(folder: Path, archives: Archives) -> None:
    """What unpacking the archives gives, with validation images sorted into folders of classes as most scripts do."""
    write_files(folder, {f"train/{wnid}/{name}": data for wnid, of in archives.train.items() for name, data in of})
    wnids = (archives.wnids[label] for label in archives.validation_labels())
    write_files(folder, {f"val/{wnid}/{name}": data for wnid, (name, data) in zip(wnids, archives.val)})


def write_kaggle(folder: Path, archives: Archives) -> None:
    base = folder / "ILSVRC/Data/CLS-LOC"
    write_files(base, {f"train/{wnid}/{name}": data for wnid, of in archives.train.items() for name, data in of})
    write_files(base, {f"val/{name}": data for name, data in archives.val})
    labels = zip(archives.val, archives.validation_labels())
    rows = [(name.removesuffix(".JPEG"), f"{archives.wnids[label]} 85 1 499 272") for (name, _), label in labels]
    write_table(folder / "LOC_val_solution.csv", reversed(rows), ("ImageId", "PredictionString"))
    words = "".join(f"{wnid} word {wnid}, other\n" for wnid in archives.wnids)
    (folder / "LOC_synset_mapping.txt").write_text(words)


def write_imagenet_shards(folder: Path, archives: Archives) -> None:
    """Shuffled, and with names that repeat the wnid, as Hugging Face has them."""
    train = [
        (f"{name.removesuffix('.JPEG')}_{wnid}.JPEG", data, archives.label(wnid))
        for wnid, of in archives.train.items()
        for name, data in of
    ]
    val = [
        (f"{name.removesuffix('.JPEG')}_{archives.wnids[label]}.JPEG", data, label)
        for (name, data), label in zip(archives.val, archives.validation_labels())
    ]
    words = [f"word {wnid}, other" for wnid in archives.wnids]
    for split, rows in (("train", train), ("validation", val)):
        shuffled: list[tuple[str | None, bytes, int]] = sorted(rows, key=lambda row: row[1][::-1])
        write_shards(folder, split, shuffled, words)
