"""Augmentation of whole batches of small uint8 images, without per-image Python.

What is drawn for image i in epoch e depends on (seed, e, i) alone, never on the batch it falls into.
"""

import torch

from moonshine.data.order import generator
from moonshine.params.schema import Augmentation


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor moved to the device. Only from pinned memory can a GPU fetch it without making the CPU wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class EpochAugmentation:
    """The draws of one epoch for every image of the training split."""

    def __init__(self, settings: Augmentation, seed: int, epoch: int, count: int):
        self.pad, self.flip = settings.pad or 0, settings.flip
        random = generator("augmentation", seed, epoch)
        self._offsets = torch.randint(0, 2 * self.pad + 1, (count, 2), generator=random)
        self._mirrored = torch.rand(count, generator=random) < 0.5

    def __call__(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Augment uint8 `images` (batch, channels, height, width), which are the split's images at `indices`."""
        if self.flip:
            mirrored = to_device(self._mirrored[indices], images.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return self._crop(images, to_device(self._offsets[indices], images.device)) if self.pad else images

    def _crop(self, images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Crops of the original size from the zero-padded images, at (row, column) offsets (batch, 2)."""
        batch, channels, height, width = images.shape
        padded = torch.nn.functional.pad(images, (self.pad,) * 4)
        rows = (offsets[:, :1] + torch.arange(height, device=images.device))[:, None, :, None]
        columns = (offsets[:, 1:] + torch.arange(width, device=images.device))[:, None, None, :]
        image = torch.arange(batch, device=images.device)[:, None, None, None]
        channel = torch.arange(channels, device=images.device)[None, :, None, None]
        return padded[image, channel, rows, columns]
