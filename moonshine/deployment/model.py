"""The model file that a user names, and its network's output for images."""

from pathlib import Path

import torch
from torch import nn

from moonshine.errors import CheckpointError, DataError, ParamsError


def refuse_folder(model: Path) -> None:
    """Raise ParamsError (exit code 2) for a folder, which otherwise would pass for a damaged file to delete."""
    if model.is_dir():
        raise ParamsError(f"{model}: is a folder; name a model file")


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
