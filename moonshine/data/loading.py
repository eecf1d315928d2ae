"""Batches for training and evaluation from a prepared data set."""

from collections.abc import Iterator
from copy import copy
from pathlib import Path

import torch

from moonshine.data.augmentation import BatchAugmentation, EpochAugmentation, to_device
from moonshine.data.jpeg_images import Batch, JpegImages, TrainingBatch
from moonshine.data.normalisation import Normalisation
from moonshine.data.order import epoch_order, first_images
from moonshine.data.shares import share
from moonshine.images.store import Split, read_manifest
from moonshine.params.schema import Augmentation
from moonshine.project import records
from moonshine.project.records import Manifest
from moonshine.runtime import distributed


class SmallImages:
    """A split whose pixels are all in one uint8 tensor on the training device."""

    def __init__(self, folder: Path, split: str, device: torch.device):
        source = Split(folder, split)
        self.manifest: Manifest = source.manifest
        self.device = device
        self.images = torch.from_numpy(source.pixels).to(device)
        self.labels = torch.from_numpy(source.labels).to(device)
        self.visited = torch.arange(len(source))
        """Indices of the images that an epoch visits."""
        self.normalise_for(self.manifest["normalisation"])

    def normalise_for(self, of_network: records.Normalisation) -> None:
        """Normalise images in another way than the manifest says, for a network that was trained elsewhere."""
        self._normalisation = Normalisation(of_network, self.device)

    def __len__(self) -> int:
        """The number of images that an epoch visits."""
        return len(self.visited)

    def training_batches(
        self, augmentation: Augmentation, seed: int, epoch: int, batch_size: int, first: int = 0
    ) -> Iterator[TrainingBatch]:
        """Batches `first`, first + 1, ... of an epoch: float images (batch, channels, height, width), int64 labels.

        Each image that an epoch visits comes exactly once; the last batch may be smaller. Each process gets a share of
        each batch.
        """
        augment = EpochAugmentation(augmentation, seed, epoch, len(self.labels))
        finish = BatchAugmentation(augmentation, seed, epoch, len(self.labels), self.manifest["shape"][1])
        order = self.visited[epoch_order(seed, epoch, len(self))]
        on_cpu = self.images.cpu() if augmentation.trivial_augment else None
        for step, batch in enumerate(order.split(batch_size)[first:], start=first):
            indices = finish.share(batch)
            on_device = to_device(indices, self.device)
            if on_cpu is None:
                pixels = augment(self.images[on_device], indices)
            else:
                pixels = to_device(augment(on_cpu[indices], indices), self.device)
            yield finish(step, indices, self._normalisation.channels_first(pixels), self.labels[on_device])

    def evaluation_batches(self, batch_size: int) -> Iterator[Batch]:
        """Every image exactly once, in file order; each process gets the same number of batches, of any size."""
        several = batch_size * distributed.WORLD_SIZE
        for images, labels in zip(self.images.split(several), self.labels.split(several)):
            yield self._normalisation.channels_first(share(images)), share(labels)


Images = SmallImages | JpegImages


def open_images(folder: Path, split: str, device: torch.device, workers: int | None) -> Images:
    """A prepared split by its encoding. `workers` processes load JPEG images; None: as many as the machine allows."""
    if read_manifest(folder)["encoding"] == "raw":
        return SmallImages(folder, split, device)
    return JpegImages(folder, split, device, workers)


def limited(images: Images, count: int | None) -> Images:
    """The same split with epochs that visit only the first `count` images of the order by class; all if None.

    What is drawn for an image in an epoch does not depend on the number of images.
    """
    part = copy(images)
    if count is not None:
        part.visited = first_images(images.labels.cpu(), count)
    return part
