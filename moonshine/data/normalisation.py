"""Network inputs: (pixel / 255 - mean) / std per channel, with the manifest's mean and std."""

import torch

from moonshine.project.records import Manifest


class Normalisation:
    """Computed from pixels of 0 to 255 in float32, on `device`."""

    def __init__(self, manifest: Manifest, device: torch.device):
        self._mean, self._std = (
            torch.tensor(manifest["normalisation"][key], device=device) * 255 for key in ("mean", "std")
        )

    def channels_first(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (images, channels, height, width) to float32 of the same shape."""
        return (pixels - self._mean.view(1, -1, 1, 1)) / self._std.view(1, -1, 1, 1)

    def channels_last(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (images, height, width, channels) to float32 (images, channels, height, width), in channels_last.

        Done row by row: an inner loop over three channels would take four times as long on a CPU.
        """
        rows = pixels.flatten(2).float()
        width = pixels.shape[2]
        return rows.sub_(self._mean.repeat(width)).div_(self._std.repeat(width)).view(pixels.shape).permute(0, 3, 1, 2)
