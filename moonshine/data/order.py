"""Order and randomness as pure functions of (seed, epoch, ...): nothing to save, nothing to replay.

A run can stop at any batch and resume to the same bytes, whatever the number of loading workers, and two networks
trained with the same seed see the same batches.
"""

import hashlib
import heapq
from collections.abc import Iterator, Sequence

import torch


def derived_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable, the same on every machine and in every process."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(*parts))


def epoch_order(seed: int, epoch: int, count: int) -> torch.Tensor:
    """The permutation of the training images in one epoch: int64, shape (count,)."""
    return torch.randperm(count, generator=generator("order", seed, epoch))


def first_images(labels: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` images of a fixed order that is stratified by class: ascending indices, int64 (count,).

    The order is the same for every seed. It begins with one image of each class. Of the first n images, each class has
    its share to within one image, for every n; only if there are classes whose share is less than one image, others
    may have fewer.

    `labels` is int64 (images,) on the CPU; `count` is at least the number of classes and at most that of images.
    """
    shuffled = torch.randperm(len(labels), generator=generator("images"))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = [size for size in labels.bincount().tolist() if size]
    queues = [images.tolist() for images in by_class.split(sizes)]
    return torch.tensor([queues[turn][number] for turn, number in _turns(sizes, count)]).sort().values


def _turns(sizes: Sequence[int], count: int) -> Iterator[tuple[int, int]]:
    """The first `count` places of the order: (class, how many of the class come before).

    A class of which s of t images are, has its share of n images, n s / t, to within one as long as its k-th image
    (from 0) is neither before place k t / s nor after place (k + 1) t / s. So of the images that may come, the one with
    the earliest last place comes next ("earliest deadline first").
    """
    total = sum(sizes)
    yield from ((turn, 0) for turn in range(len(sizes)))
    waiting = [(total // size, turn, 1) for turn, size in enumerate(sizes) if size > 1]
    heapq.heapify(waiting)
    ready: list[tuple[int, int, int]] = []
    for place in range(len(sizes), count):
        while waiting and waiting[0][0] <= place:
            _, turn, number = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(number + 1) * total // sizes[turn]), turn, number))
        _, turn, number = heapq.heappop(ready)
        yield turn, number
        if number + 1 < sizes[turn]:
            heapq.heappush(waiting, ((number + 1) * total // sizes[turn], turn, number + 1))
