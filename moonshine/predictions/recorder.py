"""What a network predicts for every image, kept while its errors are measured."""

import torch
from torch import nn

from moonshine.predictions.parquet_file import Predictions

BEST = 5
"""How many classes are kept per image; fewer if the data set has fewer."""


class Recorder(nn.Module):
    """A network that keeps what it predicts, so that one pass over the images gives errors and predictions.

    It maps images to the network's own logits, (batch, classes).
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self._best: list[torch.Tensor] = []
        self._logits: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        largest = torch.finfo(torch.float16).max
        self._best.append(logits.float().topk(min(BEST, logits.shape[1])).indices.cpu())
        self._logits.append(logits.float().clamp(-largest, largest).half().cpu())
        return logits

    def predictions(self, labels: torch.Tensor) -> Predictions:
        """Of all images that passed so far, whose labels these are, in the same order."""
        return Predictions(labels.cpu().numpy(), torch.cat(self._best).numpy(), torch.cat(self._logits).numpy())
