"""The Fisher potentials of candidates, in turn; a search resumes at the first one without."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from moonshine.data.labels import Labels
from moonshine.data.loading import Images
from moonshine.errors import CheckpointError, DivergedError
from moonshine.params.schema import Augmentation, Machine
from moonshine.runs.checkpoints import load_newest_checkpoint, save_checkpoint
from moonshine.runs.live import LiveRun
from moonshine.runtime import signals
from moonshine.runtime.progress import Progress, say
from moonshine.search.fisher import fisher_potential

DIGITS = 9
"""Significant ones of a potential, more than float32 arithmetic has; they decide the rank."""


def first_batch(images: Images, augmentation: Augmentation, seed: int, size: int) -> tuple[torch.Tensor, Labels]:
    """The first `size` images of epoch 1 of this seed and their labels; all images if there are no more."""
    batches = images.training_batches(augmentation, seed, 1, size)
    batch, labels = next(batches)
    batches.close()  # type: ignore[attr-defined]  # it is a generator; its loading workers end now
    return batch.contiguous(memory_format=torch.channels_last), labels


class Ranking:
    """The potentials of the first candidates, as many as are known.

    `folder` is the run's, in which they are saved.
    """

    def __init__(self, title: str, folder: Path, candidates: int):
        self._title, self._folder, self._candidates = title, folder, candidates
        self.potentials = list[float]()
        if saved := load_newest_checkpoint(folder):
            try:
                self.potentials = saved["potentials"].tolist()
            except (KeyError, AttributeError):
                raise CheckpointError(f"{folder}: its checkpoint is not of a search; delete this folder") from None
            say(f"{folder}: resuming from candidate {len(self.potentials):,} of {candidates:,}")

    @property
    def finished(self) -> bool:
        return len(self.potentials) == self._candidates

    def complete(
        self, become: Callable[[int], torch.nn.Module], batch: torch.Tensor, labels: Labels, machine: Machine
    ) -> None:
        """Add the potentials of the other candidates; `become` gives the network of a candidate.

        Raises Interrupted after saving, and DivergedError (exit code 7) for a potential that is not finite.
        """
        live = LiveRun(self._folder, self._candidates, len(self.potentials))
        last = time.monotonic()
        with Progress(self._title, self._candidates, len(self.potentials), unit="candidates") as progress:
            while not self.finished:
                candidate = len(self.potentials)
                potential = fisher_potential(become(candidate), batch, labels)
                if not math.isfinite(potential):
                    raise DivergedError(
                        f"{self._title}: the Fisher potential of candidate {candidate} is {potential}; choose another "
                        "seed or pool"
                    )
                self.potentials.append(float(f"{potential:.{DIGITS}g}"))
                progress.update()
                done = len(self.potentials)
                if live.due:
                    live.beat(1, done)
                late = time.monotonic() - last >= machine.checkpoint_seconds
                if late or self.finished or signals.received() or done % (machine.checkpoint_steps or done + 1) == 0:
                    self._save()
                    last = time.monotonic()
                if signals.received() and not self.finished:
                    raise signals.stop_now("a checkpoint is saved, the same command resumes from it")

    def _save(self) -> None:
        state = {"potentials": torch.tensor(self.potentials, dtype=torch.float64)}
        save_checkpoint(self._folder, len(self.potentials), state)
