"""Predictions as a Parquet file, which pandas, Polars and DuckDB read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moonshine.errors import DataError, first_line
from moonshine.runtime.files import write_bytes


@dataclass(frozen=True)
class Predictions:
    """Of one network for a whole split, in the split's order.

    `labels` is int64, (images,). `best` has the classes with the largest logits, largest first, int64, (images, up to
    5). `logits` is float16, (images, classes), clamped to its finite range.
    """

    labels: np.ndarray
    best: np.ndarray
    logits: np.ndarray


def write_predictions(path: Path, predictions: Predictions) -> None:
    """One line per image; equal predictions give equal bytes.

    Columns: `index` (position in the split), `label`, `best1` to `best5` (classes, most likely first; all int32) and
    `logits` (a list of float16). No images and no names of files.
    """
    count, classes = predictions.logits.shape
    columns = {"index": np.arange(count), "label": predictions.labels}
    columns |= {f"best{place}": column for place, column in enumerate(predictions.best.T, start=1)}
    logits = pa.FixedSizeListArray.from_arrays(pa.array(predictions.logits.reshape(-1), pa.float16()), classes)
    arrays = {name: pa.array(column, pa.int32()) for name, column in columns.items()}
    file = pa.BufferOutputStream()
    pq.write_table(pa.table({**arrays, "logits": logits}), file, compression="zstd")
    write_bytes(path, memoryview(file.getvalue()))


def read_predictions(path: Path) -> Predictions:
    """What `write_predictions` wrote. Raises DataError (exit code 3) if the file is missing or damaged."""
    try:
        table = pq.read_table(path)
        best = [name for name in table.column_names if name.startswith("best")]
        logits = table["logits"].combine_chunks()
        return Predictions(
            table["label"].to_numpy().astype(np.int64),
            np.stack([table[name].to_numpy() for name in best], axis=1).astype(np.int64),
            logits.flatten().to_numpy().reshape(len(logits), -1),
        )
    except FileNotFoundError:
        raise DataError(f"{path}: missing; run `moonshine evaluate` for its row") from None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path}: damaged ({first_line(error)}); run `moonshine evaluate` for its row") from None
