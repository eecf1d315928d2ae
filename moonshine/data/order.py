"""Order and randomness as pure functions of (seed, epoch, ...): nothing to save, nothing to replay.

A run can stop at any batch and resume to the same bytes, whatever the number of loading workers, and two networks
trained with the same seed see the same batches.
"""

import hashlib

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
