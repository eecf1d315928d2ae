"""Network inputs: (pixel / 255 - mean) / std per channel, with the manifest's mean and std or a network's own."""

import torch

from moonshine.project import records


class Normalisation:
    """Computed from pixels of 0 to 255 in float32, on `device`."""

    def __init__(self, of_channels: records.Normalisation, device: torch.device):
        self._mean, self._std = (torch.tensor(of_channels[key], device=device) * 255 for key in ("mean", "std"))

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


class Renormalisation:
    """From images normalised for one network to what another must see of them, per channel on `device`.

    The constants are rounded to float32 once, so that its result differs from normalising the pixels by no more than
    the rounding of a few operations.
    """

    def __init__(self, images: records.Normalisation, network: records.Normalisation, device: torch.device):
        (mean, std), (own_mean, own_std) = (
            [torch.tensor(each[key], dtype=torch.float64).view(1, -1, 1, 1) for key in ("mean", "std")]
            for each in (images, network)
        )
        self._scale, self._shift = (
            (std / own_std).float().to(device),
            ((mean - own_mean) / own_std).float().to(device),
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Float (images, channels, height, width), a new tensor of the same shape."""
        return images * self._scale + self._shift
