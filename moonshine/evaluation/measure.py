"""Errors and loss of a network over a whole split."""

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from moonshine.data.loading import Images
from moonshine.data.shares import summed
from moonshine.errors import DataError

BATCH_SIZE = 200


def measure(network: nn.Module, data: Images, before_each_batch: Callable[[], None]) -> dict[str, float]:
    """Top-1 and top-5 error in per cent, mean cross-entropy and n; every image is counted once, by one process.

    `before_each_batch` may stop it by raising. Raises DataError (exit code 3) if the count is not the manifest's. The
    network is left in the mode it was in.
    """
    was_training = network.training
    network.eval()
    totals = torch.zeros(3, dtype=torch.float64, device=data.device)
    count = 0
    with torch.inference_mode():
        for images, labels in data.evaluation_batches(BATCH_SIZE):
            before_each_batch()
            if len(labels) == 0:
                continue  # the other processes got the last images
            logits = network(images).float()
            best = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
            loss = cross_entropy(logits, labels, reduction="sum")
            totals += torch.stack([loss.double(), best[:, 0].sum().double(), best.sum().double()])
            count += len(labels)
    network.train(was_training)
    count = int(summed(torch.tensor(count)))
    expected = data.manifest["splits"]["val"]["count"]
    if count != expected:
        raise DataError(f"evaluated {count} images, but the manifest says {expected}")
    loss, top1, top5 = (summed(totals) / count).tolist()
    return {"loss": loss, "top1": 100 * (1 - top1), "top5": 100 * (1 - top5), "n": count}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation over seeds; the deviation of a single value is left out."""
    of_values = {"mean": round(statistics.mean(values), 6)}
    return of_values if len(values) == 1 else {**of_values, "std": round(statistics.stdev(values), 6)}
