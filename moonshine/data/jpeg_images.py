"""Batches of JPEG images, decoded and cropped by worker processes, normalised on the training device."""

import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from threading import Thread
from traceback import clear_frames
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from moonshine.data.augmentation import BatchAugmentation, to_device
from moonshine.data.crops import evaluation_pixels, training_pixels
from moonshine.data.labels import Labels
from moonshine.data.normalisation import Normalisation
from moonshine.data.order import derived_seed, epoch_order
from moonshine.data.shares import share
from moonshine.data.trivial_augment import TrivialAugment
from moonshine.errors import DataError, MachineError
from moonshine.images.decoding import decode
from moonshine.images.store import Split
from moonshine.params.schema import Augmentation
from moonshine.project import records
from moonshine.project.records import Manifest
from moonshine.runtime import distributed
from moonshine.runtime.loading_workers import BATCHES_AHEAD, loading_workers
from moonshine.runtime.signals import STOP_SIGNALS

Batch = tuple[torch.Tensor, torch.Tensor]
TrainingBatch = tuple[torch.Tensor, Labels]

SECONDS_FOR_A_BATCH = 600.0
"""After this long without a batch, a worker counts as hung."""
SECONDS_BETWEEN_LOOKS = 5.0
"""How often torch checks for dead workers: one that died before all had started sends it no signal."""


class JpegImages:
    """A split of JPEG bytes that stays on disk; the same batches as SmallImages gives, whatever the number of workers.

    Workers only decode and crop. Memory does not grow over an epoch: images are read, not mapped.

    `workers` is their number; None: as many as the machine allows.
    """

    def __init__(self, folder: Path, split: str, device: torch.device, workers: int | None):
        self._source = Split(folder, split)
        self.manifest: Manifest = self._source.manifest
        self.device, self._workers = device, workers
        self.labels = torch.from_numpy(self._source.labels).to(device)
        self.visited = torch.arange(len(self._source))
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
        several = self.visited[epoch_order(seed, epoch, len(self))].split(batch_size)[first:]
        size = augmentation.crop_size or self.manifest["shape"][1]
        finish = BatchAugmentation(augmentation, seed, epoch, len(self.labels), size)
        batches = [finish.share(indices) for indices in several]
        normalised = self._normalised(batches, self.training_pixels(augmentation, seed, epoch, batches))
        for step, (indices, (images, labels)) in enumerate(zip(batches, normalised), start=first):
            yield finish(step, indices, images, labels)

    def evaluation_batches(self, batch_size: int) -> Iterator[Batch]:
        """Every image exactly once, in file order; each process gets the same number of batches, of any size."""
        several = torch.arange(len(self.labels)).split(batch_size * distributed.WORLD_SIZE)
        batches = [share(indices) for indices in several]
        return self._normalised(batches, self._load(_EvaluationView(self._source), batches))

    def training_pixels(
        self, augmentation: Augmentation, seed: int, epoch: int, batches: Sequence[torch.Tensor]
    ) -> Iterator[torch.Tensor]:
        """The workers' output for the images at some indices: uint8 (images, height, width, channels) per batch."""
        return self._load(_TrainingView(self._source, augmentation, seed, epoch), batches)

    def _normalised(self, batches: Iterable[torch.Tensor], pixels: Iterable[torch.Tensor]) -> Iterator[Batch]:
        for indices, images in zip(batches, pixels):
            on_device = images.to(self.device, non_blocking=True)
            yield self._normalisation.channels_last(on_device), self.labels[to_device(indices, self.device)]

    def _load(self, view: "_View", batches: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        on_gpu = self.device.type == "cuda"
        largest = max(map(len, batches), default=0)
        workers = loading_workers(self._workers, on_gpu, max(1, largest) * view.image_bytes)
        loader = DataLoader(
            view,
            batch_sampler=[batch.tolist() for batch in batches],
            num_workers=workers,
            prefetch_factor=BATCHES_AHEAD if workers else None,
            multiprocessing_context="fork" if workers else None,  # others would copy the view, with all of the data
            collate_fn=_as_it_is,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # its own, because training uses the global one
            pin_memory=on_gpu,
            timeout=SECONDS_BETWEEN_LOOKS if workers else 0,
        )
        return _raise_worker_errors(loader)


class _View(Dataset[torch.Tensor]):
    """The pixels of the images at some indices, uint8 (images, height, width, channels); subclasses choose which.

    An image that cannot be read or decoded is returned as its error: raised in a worker, it would arrive with a
    traceback.
    """

    def __init__(self, source: Split, size: int | None = None):
        """`size` is the side of the images; that of the manifest if None."""
        self._source = source
        self._channels, self._size = source.manifest["shape"][0], size or source.manifest["shape"][1]
        self.image_bytes = self._size * self._size * self._channels

    def __getitems__(self, indices: list[int]) -> torch.Tensor | DataError:
        batch = torch.empty((len(indices), self._size, self._size, self._channels), dtype=torch.uint8)
        if get_worker_info():
            batch.share_memory_()  # now, while it is empty; later it would be copied
        try:
            for pixels, index in zip(batch.numpy(), indices):
                pixels[:] = self._pixels(index)
        except DataError as error:
            return error
        except OSError as error:
            return DataError(f"{self._source.path}: cannot be read ({error.strerror}); run the same command again")
        return batch

    def _name(self, index: int) -> str:
        return f"{self._source.path}: image {index}"

    def _pixels(self, index: int) -> np.ndarray:
        raise NotImplementedError


class _TrainingView(_View):
    def __init__(self, source: Split, augmentation: Augmentation, seed: int, epoch: int):
        super().__init__(source, augmentation.crop_size)
        assert augmentation.crop_scale is not None
        self._scale, self._flip = (augmentation.crop_scale[0], augmentation.crop_scale[1]), augmentation.flip
        self._random = np.random.Generator(np.random.Philox(key=derived_seed("augmentation", seed, epoch)))
        self._start = self._random.bit_generator.state
        self._trivial_augment = TrivialAugment(seed, epoch) if augmentation.trivial_augment else None

    def _pixels(self, index: int) -> np.ndarray:
        # as np.random.Philox(key, counter=[0, 0, 0, index]), but making one for each image takes 30 microseconds
        self._start["state"]["counter"] = np.array([0, 0, 0, index], np.uint64)
        self._random.bit_generator.state = self._start
        encoded = self._source.encoded(index)
        then = partial(self._trivial_augment, index=index) if self._trivial_augment else None
        size, random = self._size, self._random
        return training_pixels(encoded, self._name(index), size, self._scale, self._flip, random, self._channels, then)


class _EvaluationView(_View):
    def _pixels(self, index: int) -> np.ndarray:
        name = self._name(index)
        image = decode(self._source.encoded(index), name, self._channels)
        return evaluation_pixels(image, name, self._size, self._source.manifest["evaluation"]["resize"])


def _raise_worker_errors(loader: DataLoader[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The workers' output, with each of their errors as one line."""
    others = set(active_children())
    try:
        for pixels in _poll_loader(loader):
            if isinstance(pixels, DataError):
                raise pixels
            yield pixels
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        clear_frames(error.__traceback__)  # they hold torch's iterator; freeing it stops the workers that still respond
        for worker in set(active_children()) - others:
            worker.kill()  # on exit, this process would wait for one that ignores signals and hangs
        raise MachineError(
            f"a loading worker died or hung ({str(error).splitlines()[0]}); memory or /dev/shm may be full: "
            "reduce machine.workers, or give more with docker run --shm-size"
        ) from None


def _poll_loader(loader: DataLoader[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The workers' output.

    torch checks that its workers are alive only when its timeout ends, so the timeout is short; and with a timeout, it
    never checks the thread that pins their output.
    """
    batches, waited = iter(loader), 0.0
    pinning: Thread | None = getattr(batches, "_pin_memory_thread", None)
    with _failures_of(pinning) as failures:
        while waited < SECONDS_FOR_A_BATCH:
            try:
                made = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader timed out" not in str(error):
                    raise
                waited += SECONDS_BETWEEN_LOOKS
            else:
                waited = 0.0
                yield made
            if waited and pinning and not pinning.is_alive():
                raise RuntimeError(f"DataLoader's pinning thread ended: {', '.join(map(repr, failures))}")
    raise RuntimeError(f"DataLoader made nothing for {waited:.0f} seconds")


@contextmanager
def _failures_of(thread: Thread | None) -> Iterator[list[BaseException | None]]:
    """A list for the error that ends this thread, whose traceback is then not printed."""
    failures: list[BaseException | None] = []
    print_traceback = threading.excepthook

    def note(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is thread:
            failures.append(failure.exc_value)
        else:
            print_traceback(failure)

    threading.excepthook = note
    try:
        yield failures
    finally:
        threading.excepthook = print_traceback


def _as_it_is(batch: Any) -> Any:
    return batch


def _ignore_signals(worker: int) -> None:
    """Stop signals are for the main process, which needs its workers until a checkpoint is saved."""
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, signal.SIG_IGN)
    torch.set_num_threads(1)
