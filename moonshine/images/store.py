"""Prepared data on disk: one Arrow IPC file per split, and a manifest.

Columns: `image` (raw uint8 pixels, channels first, of one fixed shape; or JPEG bytes), `label` (int32), `id`
(text, unique within the split, from the source). The files are memory-mapped: a reader touches only what it needs.
The manifest records what the files must be (hash, count), what a network needs to know (classes, shape,
normalisation) and where it all came from.
"""

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from moonshine.errors import DataError
from moonshine.project.records import Manifest, SplitRecord
from moonshine.runtime import signals
from moonshine.runtime.files import atomic_write, read_checked_json, sha256

SPLITS = ("train", "val")
ROWS_PER_BATCH = 1024


def split_path(folder: Path, split: str) -> Path:
    return folder / f"{split}.arrow"


def write_split(
    folder: Path, split: str, rows: Iterable[tuple[bytes, int, str]], bytes_per_image: int | None
) -> SplitRecord:
    """Write one split from (image bytes, label, id) rows as they come; returns its entry in the manifest.

    `bytes_per_image` is the fixed length of raw pixels, None for JPEG. The file appears only when complete.
    """
    image = pa.binary(bytes_per_image) if bytes_per_image else pa.large_binary()
    schema = pa.schema([("image", image), ("label", pa.int32()), ("id", pa.string())])
    path = split_path(folder, split)
    count = 0
    with atomic_write(path) as file, pa.ipc.new_file(file, schema) as writer:
        block: list[tuple[bytes, int, str]] = []
        for row in rows:
            block.append(row)
            count += 1
            if len(block) == ROWS_PER_BATCH:
                signals.poll()
                writer.write_batch(_batch(block, schema))
                block = []
        if block:
            writer.write_batch(_batch(block, schema))
    return {"count": count, "bytes": path.stat().st_size, "sha256": sha256(path)}


def _batch(rows: list[tuple[bytes, int, str]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch([pa.array(column, field.type) for column, field in zip(zip(*rows), schema)], schema=schema)


def read_manifest(folder: Path) -> Manifest:
    return cast(Manifest, read_checked_json(folder / "manifest.json", "run `moonshine prepare`"))


class Split:
    """One memory-mapped split, checked against its manifest; raw images, which are read whole, to the last bit."""

    def __init__(self, folder: Path, split: str):
        self.manifest = read_manifest(folder)
        self.name, self.path = split, split_path(folder, split)
        path = self.path
        try:
            if self.manifest["encoding"] == "raw" and sha256(path) != self.manifest["splits"][split]["sha256"]:
                raise DataError(f"{path}: damaged, its sha256 is not the manifest's; run `moonshine prepare`")
            self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except FileNotFoundError:
            raise DataError(f"{path}: missing; run `moonshine prepare`") from None
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: damaged ({error}); run `moonshine prepare`") from None
        expected = self.manifest["splits"][split]["count"]
        if len(self._table) != expected:
            raise DataError(f"{path}: {len(self._table)} images, but the manifest says {expected}; prepare it again")

    def __len__(self) -> int:
        return len(self._table)

    @property
    def labels(self) -> np.ndarray:
        """int64, shape (images,)."""
        chunks = [np.from_dlpack(chunk) for chunk in self._table["label"].chunks]  # to_numpy() would import pandas
        return np.concatenate(chunks).astype(np.int64)

    @property
    def ids(self) -> list[str]:
        return self._table["id"].to_pylist()

    def encoded(self, index: int) -> bytes:
        """One image of a JPEG data set. It is read, not mapped, so that reading many takes no memory."""
        start, length = self._positions[index].tolist()
        content = os.pread(self._file, length, start)
        if len(content) != length:
            raise DataError(f"{self.path}: cut short while it was read; run `moonshine prepare`")
        return content

    @cached_property
    def _file(self) -> int:
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    @cached_property
    def _positions(self) -> np.ndarray:
        """Where each image is in the file: (start, length), int64, shape (images, 2)."""
        mapped = pa.memory_map(str(self.path)).read_buffer()
        table = pa.ipc.open_file(mapped).read_all()
        blocks = []
        for chunk in table["image"].chunks:
            _, offsets, data = chunk.buffers()
            ends = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            blocks.append(np.stack([data.address - mapped.address + ends[:-1], np.diff(ends)], axis=1))
        return np.concatenate(blocks)

    @property
    def pixels(self) -> np.ndarray:
        """All images of a raw data set, uint8, shape (images, channels, height, width)."""
        chunks = self._table["image"].chunks
        shape = tuple(self.manifest["shape"])
        length = int(np.prod(shape))
        blocks = [_raw(chunk, length) for chunk in chunks]
        return np.concatenate(blocks).reshape(-1, *shape)


def _raw(chunk: pa.Array, length: int) -> np.ndarray:
    """The bytes of a fixed-size binary array, without a copy."""
    start = chunk.offset * length
    return np.frombuffer(chunk.buffers()[1], np.uint8)[start : start + len(chunk) * length]
