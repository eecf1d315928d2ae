"""Checkpoint files with torchvision's keys, as PyTorch writes them today and as it did in 2017."""

from collections.abc import Mapping
from pathlib import Path

import torch

from moonshine.runtime.files import sha256


def write_checkpoint(state: Mapping[str, torch.Tensor], target: Path, of_2017: bool = False) -> str:
    """A network's weights as a checkpoint; returns its sha256.

    The files of 2017 are no zip archives and lack the counters of batch norm.
    """
    if of_2017:
        state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(state, target, _use_new_zipfile_serialization=not of_2017)
    return sha256(target)
