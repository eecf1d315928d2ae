"""A network's output in PyTorch, which exported files are compared with."""

from pathlib import Path

import torch
from torch import nn

from moonshine.errors import CheckpointError, DataError


def logits_of(network: nn.Module, images: torch.Tensor, model: Path) -> torch.Tensor:
    """The network's output, float32 (images, classes).

    Raises CheckpointError (exit code 8) if it cannot take images of the size that its file names, DataError (3)
    if its output is not finite, as with weights that are not finite.
    """
    try:
        with torch.inference_mode():
            logits: torch.Tensor = network(images)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{model}: cannot take images of {list(images.shape[1:])} ({reason})") from None
    if not logits.isfinite().all():
        raise DataError(f"{model}: its output is not finite, so its weights or normalisation are unusable")
    return logits
