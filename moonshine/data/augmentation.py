"""Augmentation of whole batches: of small uint8 images, and of any images once they are normalised.

What is drawn for image i in epoch e depends on (seed, e, i) alone, never on the batch it falls into; only how images
are mixed is a property of a batch.
"""

import torch

from moonshine.data.erasing import cutout_boxes, erase, random_erasing_boxes
from moonshine.data.labels import Labels
from moonshine.data.mixing import Mixing, share_with_partners
from moonshine.data.order import generator
from moonshine.data.shares import share
from moonshine.data.trivial_augment import TrivialAugment
from moonshine.params.schema import Augmentation


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor moved to the device. Only from pinned memory can a GPU fetch it without making the CPU wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class EpochAugmentation:
    """The draws of one epoch for every image of the training split of small images."""

    def __init__(self, settings: Augmentation, seed: int, epoch: int, count: int):
        self.pad, self.flip = settings.pad or 0, settings.flip
        random = generator("augmentation", seed, epoch)
        self._offsets = torch.randint(0, 2 * self.pad + 1, (count, 2), generator=random)
        self._mirrored = torch.rand(count, generator=random) < 0.5
        self._trivial_augment = TrivialAugment(seed, epoch) if settings.trivial_augment else None

    def __call__(self, images: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Augment uint8 `images` (batch, channels, height, width), which are the split's images at `indices`.

        With TrivialAugment, which takes one image after another, they must be on the CPU.
        """
        if self.flip:
            mirrored = to_device(self._mirrored[indices], images.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if self.pad:
            images = self._crop(images, to_device(self._offsets[indices], images.device))
        return self._trivial_augment.of_batch(images, indices) if self._trivial_augment else images

    def _crop(self, images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Crops of the original size from the zero-padded images, at (row, column) offsets (batch, 2)."""
        batch, channels, height, width = images.shape
        padded = torch.nn.functional.pad(images, (self.pad,) * 4)
        rows = (offsets[:, :1] + torch.arange(height, device=images.device))[:, None, :, None]
        columns = (offsets[:, 1:] + torch.arange(width, device=images.device))[:, None, None, :]
        image = torch.arange(batch, device=images.device)[:, None, None, None]
        channel = torch.arange(channels, device=images.device)[None, :, None, None]
        return padded[image, channel, rows, columns]


class BatchAugmentation:
    """What is done in one epoch to normalised batches on the training device: erasing, then mixing."""

    def __init__(self, settings: Augmentation, seed: int, epoch: int, count: int, size: int):
        """For a training split of `count` images, of which networks see size x size pixels."""
        self._boxes = []
        if settings.cutout:
            self._boxes.append(cutout_boxes(settings.cutout, size, count, generator("cutout", seed, epoch)))
        if settings.random_erasing:
            random = generator("random erasing", seed, epoch)
            self._boxes.append(random_erasing_boxes(settings.random_erasing, size, count, random))
        self._mixing = Mixing(settings, seed, epoch) if settings.mixes else None

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """The indices, of those of a batch, of the images that this process needs for its share."""
        return share_with_partners(batch) if self._mixing else share(batch)

    def __call__(
        self, step: int, indices: torch.Tensor, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, Labels]:
        """This process's share of the epoch's batch `step`, made of its images at `indices`, as `share` gives them.

        `images` is float (indices, channels, height, width), and may be overwritten; `labels` is int64 (indices,).
        """
        for boxes in self._boxes:
            images = erase(images, to_device(boxes[indices], images.device))
        return self._mixing(step, images, labels) if self._mixing else (images, labels)
