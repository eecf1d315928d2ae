"""Predictions as a Parquet file, which pandas, Polars and DuckDB read."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moonshine.predictions.recorder import Predictions
from moonshine.runtime.files import write_bytes


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
