"""On how many images only one of two networks is wrong, which is what McNemar's test compares."""

import numpy as np

from moonshine.predictions.parquet_file import Predictions

WITHIN = {"top1": 1, "top5": 5}
"""Error -> among how many of the most likely classes the label must be."""


def wrong(predictions: Predictions) -> dict[str, np.ndarray]:
    """Error -> whether each image counts towards it: bool, (images,)."""
    is_label = predictions.best == predictions.labels[:, None]
    return {error: ~is_label[:, :within].any(1) for error, within in WITHIN.items()}


def only_one_wrong(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, int]:
    """The number of images that only the first network gets wrong, and only the second, for each error."""
    counts = {}
    for error in WITHIN:
        counts[f"{error}_only_row"] = int((ours[error] & ~theirs[error]).sum())
        counts[f"{error}_only_other"] = int((theirs[error] & ~ours[error]).sum())
    return counts
