"""Image data sets as Hugging Face stores them: Parquet shards such as data/train-00000-of-00003.parquet.

The column `image` is a struct of `bytes` and `path`, and `label` an integer whose names are in the schema's metadata.
Shards are read in a stream: no more than a group of rows, as the file's writer chose it, is in memory at a time.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moonshine.errors import DataError

SHARD = re.compile(r"(?P<split>[A-Za-z]+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?\.parquet")
ROWS = 32
"""Images decoded from a shard at a time."""
BUFFER = 1 << 20
"""Bytes read from a shard at a time."""


@dataclass(frozen=True)
class ShardIndex:
    """What a shard has apart from its images, by row."""

    paths: list[str | None]
    labels: list[int]
    names: list[str] | None
    """The names of classes by label, if its schema has them."""
    image_bytes: int
    """Total size of its images, or a little more."""


def find_shards(root: Path) -> dict[str, list[Path]]:
    """Split, as the files call it -> its shards in order, from `root`/data or `root`; empty if there are none.

    Raises DataError (exit code 3) if shards of a split are missing, or if they are of several versions of it.
    """
    for folder in (root / "data", root):
        found: dict[str, dict[int, Path]] = {}
        counts: dict[str, int] = {}
        for path in sorted(folder.glob("*.parquet")):
            if match := SHARD.fullmatch(path.name):
                number, count = int(match["number"]), int(match["count"])
                shards = found.setdefault(match["split"], {})
                if number in shards or counts.setdefault(match["split"], count) != count:
                    other = shards.get(number) or next(iter(shards.values()))
                    raise DataError(
                        f"{folder}: {other.name} and {path.name} are of two versions of {match['split']}; leave one"
                    )
                shards[number] = path
        for split, shards in found.items():
            if absent := sorted(set(range(counts[split])) - set(shards)):
                raise DataError(
                    f"{folder}: shard {absent[0]} of {counts[split]} of {split} is missing, "
                    f"{len(absent)} in all; get them again"
                )
        if found:
            return {split: [shards[number] for number in sorted(shards)] for split, shards in found.items()}
    return {}


def read_index(path: Path) -> ShardIndex:
    """Everything but the images. DataError (exit code 3) if a shard is damaged or has other columns."""
    with _open(path) as file:
        _require_columns(file.schema_arrow, path)
        table = _read(lambda: file.read(columns=["image.path", "label"]), path)
        labels = table["label"].to_pylist()
        if None in labels:
            raise DataError(f"{path}: row {labels.index(None)} has no label")
        try:
            paths = [image and image["path"] for image in table["image"].to_pylist()]
        except UnicodeDecodeError:
            raise DataError(f"{path}: a path in it is not UTF-8; get it again") from None
        return ShardIndex(paths, labels, _names(file.schema_arrow), _image_bytes(file))


def stream_images(path: Path) -> Iterator[bytes]:
    """The encoded images of a shard, in the order of its rows."""
    row = 0
    with _open(path) as file:
        for batch in _batches(file, path):
            for image in batch.column(0).field("bytes"):
                if not image.is_valid:
                    raise DataError(f"{path}: row {row} names its image but does not contain it; get it with images")
                yield image.as_py()
                row += 1


def _batches(file: pq.ParquetFile, path: Path) -> Iterator[pa.RecordBatch]:
    for group in range(file.num_row_groups):  # one by one, because Arrow would keep what it has read of the former
        batches = file.iter_batches(ROWS, row_groups=[group], columns=["image.bytes"], use_threads=False)
        while (batch := _read(partial(next, batches, None), path)) is not None:
            yield batch


def _open(path: Path) -> pq.ParquetFile:
    opened: pq.ParquetFile = _read(lambda: pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False), path)
    return opened


def _read(read: Any, path: Path) -> Any:
    try:
        return read()
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        raise DataError(f"{path}: cannot be read ({reason}); get it again") from None
    except pa.ArrowException as error:
        raise DataError(f"{path}: damaged, or not Parquet ({str(error).partition(chr(10))[0]}); get it again") from None


def _require_columns(schema: pa.Schema, path: Path) -> None:
    columns = {name: schema.field(name).type for name in ("image", "label") if schema.names.count(name) == 1}
    image, label = columns.get("image"), columns.get("label")
    parts = {field.name: field.type for field in image} if image is not None and pa.types.is_struct(image) else {}
    has_image = "path" in parts and _is_binary(parts.get("bytes"))
    if not has_image or label is None or not pa.types.is_integer(label):
        raise DataError(
            f"{path}: its columns are {', '.join(schema.names)}; needs image, of bytes and path, and label, an integer"
        )


def _is_binary(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _names(schema: pa.Schema) -> list[str] | None:
    """The names of a ClassLabel, from what the datasets library puts into the schema's metadata."""
    try:
        names = json.loads(schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (TypeError, KeyError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _image_bytes(file: pq.ParquetFile) -> int:
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == "image.bytes")
