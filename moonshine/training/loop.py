"""Train networks of one seed together: one pass over the data, one forward pass of the teacher per batch."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from moonshine.data.loading import Images
from moonshine.data.shares import weight_of_share
from moonshine.errors import DivergedError
from moonshine.evaluation.measure import measure
from moonshine.params.schema import Recipe
from moonshine.runs.checkpoints import save_checkpoint
from moonshine.runs.live import LiveRun
from moonshine.runs.run_folder import RunFolder
from moonshine.runtime import distributed, signals
from moonshine.runtime.progress import Progress, say
from moonshine.training.publish import curve_csv
from moonshine.training.replicas import share_statistics
from moonshine.training.schedule import steps_per_epoch
from moonshine.training.state import TrainingState

SECONDS_BETWEEN_NOTES = 1.0
SECONDS_BETWEEN_EXCHANGES, MOST_BATCHES_BETWEEN_EXCHANGES = 0.25, 10
"""Of signals and due checkpoints between processes, for which their hosts must wait."""
STEPS_BETWEEN_CHECKS = {"cpu": 1, "cuda": 50}
"""For a non-finite loss. A check makes the CPU wait for a GPU; nothing is updated after the first such step anyway."""


class TrainingLoop:
    """Trains networks to completion, saving each in its run folder.

    Each network gets exactly the batches and the arithmetic that it would get alone, so its bytes don't depend on the
    others. One that diverges is dropped; the others continue. `recipe` is that of any of them: they agree on epochs,
    batch size and augmentation; each has its own learning rate and optimiser.
    """

    def __init__(
        self,
        states: dict[TrainingState, RunFolder],
        teacher: Callable[[torch.Tensor], Any] | None,
        train: Images,
        val: Images,
        recipe: Recipe,
        seed: int,
        checkpoint_seconds: float,
        checkpoint_steps: int | None,
    ):
        self.states, self.teacher, self.train, self.val = dict(states), teacher, train, val
        self.recipe, self.seed = recipe, seed
        self.checkpoint_seconds, self.checkpoint_steps = checkpoint_seconds, checkpoint_steps
        self.batches_per_epoch = steps_per_epoch(recipe, len(train))
        steps = recipe.epochs * self.batches_per_epoch
        self._live = {
            state: LiveRun(folder.path, steps, self._step(state.epoch, state.batch))
            for state, folder in self.states.items()
        }
        self._failures: list[DivergedError] = []
        self._exchange_every = self._until_exchange = 1

    def run(self) -> list[DivergedError]:
        """Trains until every network has finished or diverged; returns the errors of those that diverged.

        Raises Interrupted after saving. Afterwards `states` holds those that finished.
        """
        self._last_save = self._last_note = self._last_exchange = time.monotonic()
        start, batch = min((state.epoch, state.batch) for state in self.states)
        total = self.recipe.epochs * len(self.train)
        done = (start - 1) * len(self.train) + batch * self.recipe.batch_size
        title = ", ".join(state.row.name for state in self.states) + f" seed {self.seed}"
        with Progress(title, total, done, unit="images") as progress:
            for epoch in range(start, self.recipe.epochs + 1):
                if not self.states:
                    break
                self._train_epoch(epoch, batch, progress)
                self._validate(epoch)
                batch = 0
        return self._failures

    def _train_epoch(self, epoch: int, first: int, progress: Progress) -> None:
        batches = self.train.training_batches(self.recipe.augmentation, self.seed, epoch, self.recipe.batch_size, first)
        for batch, (images, labels) in enumerate(batches, start=first):
            self._stay_safe()
            if not self.states:
                return
            size = min(self.recipe.batch_size, len(self.train) - batch * self.recipe.batch_size)
            ready = [t for t in self.states if (t.epoch, t.batch) == (epoch, batch)]
            of_teacher = self.teacher(images) if self.teacher else None
            for state in ready:
                state.step(images, labels, of_teacher, weight_of_share(len(labels), size))
            if (batch + 1) % STEPS_BETWEEN_CHECKS[self.train.device.type] == 0:
                self._drop_diverged()
            progress.update(size, self._note(epoch))
            self._beat_if_due()
            if self.checkpoint_steps and self._step(epoch, batch + 1) % self.checkpoint_steps == 0:
                self._save_all()
        self._drop_diverged()

    def _validate(self, epoch: int) -> None:
        for state in list(self.states):
            if state.epoch != epoch or state not in self.states:  # a save during another's validation may drop it
                continue
            share_statistics(state.result)
            measured = measure(state.result, self.val, self._stay_safe)
            if state not in self.states:  # or a save during its own
                continue
            losses = {"validation loss": measured["loss"], "every step's loss": state.training_means()["loss"]}
            if wrong := [name for name, loss in losses.items() if not math.isfinite(loss)]:
                self._drop(state, state.diverged(" and ".join(wrong)))
                continue
            state.finish_epoch(measured)
            last = state.history[-1]
            self._live[state].finish_epoch(curve_csv(state.history))
            self._beat(state)
            say(
                f"{state.row} seed {self.seed}: epoch {epoch}/{self.recipe.epochs} lr {last['lr']:g} "
                f"loss {last['loss']:.4f} train top-1 error {last['train_top1']:.2f} % "
                f"val top-1 error {last['val_top1']:.2f} %"
            )

    def _drop_diverged(self) -> None:
        for state in list(self.states):
            try:
                state.check()
            except DivergedError as error:
                self._drop(state, error)

    def _drop(self, state: TrainingState, error: DivergedError) -> None:
        say(f"dropped: {error}")
        self._failures.append(error)
        self._live[state].beat(state.epoch, self._step(state.epoch, state.batch), diverged=str(error))
        del self.states[state]

    def _beat_if_due(self) -> None:
        for state in self.states:
            if self._live[state].due:
                self._beat(state)

    def _beat(self, state: TrainingState) -> None:
        step = self._step(state.epoch, state.batch)
        self._live[state].beat(state.epoch, step, training=state.training_means() if state.batch else None)

    def _note(self, epoch: int) -> str:
        """Epoch, loss, its parts and error for the bar; reading them waits for the device, so not at every step."""
        if time.monotonic() - self._last_note < SECONDS_BETWEEN_NOTES or not self.states:
            return ""
        self._last_note = time.monotonic()
        state = next(iter(self.states))
        means = " ".join(f"{name} {value:.3g}" for name, value in state.training_means().items())
        return f"epoch {epoch} {means}"

    def _stay_safe(self) -> None:
        """Stop if a process was asked to, and save if it is time. Called before each batch, also of a validation.

        Several processes exchange this, but not at every batch: with it they agree on the batch of the next exchange.
        """
        self._until_exchange -= 1
        if self._until_exchange:
            return
        late = time.monotonic() - self._last_save >= self.checkpoint_seconds
        stopped, save, self._exchange_every = distributed.largest(signals.received(), late, self._next_exchange())
        self._until_exchange = self._exchange_every
        if stopped or save:
            self._save_all()
        if stopped:
            raise signals.stop_now("a checkpoint is saved, the same command resumes from it", stopped)

    def _next_exchange(self) -> int:
        """After how many batches, at the speed of those since the last exchange."""
        now = time.monotonic()
        seconds, self._last_exchange = (now - self._last_exchange) / self._exchange_every, now
        if distributed.WORLD_SIZE == 1:
            return 1
        return max(1, min(int(SECONDS_BETWEEN_EXCHANGES / (seconds + 1e-9)), MOST_BATCHES_BETWEEN_EXCHANGES))

    def _save_all(self) -> None:
        """Save every network except diverged ones, whose last good checkpoints stay."""
        self._drop_diverged()
        for state, folder in list(self.states.items()):
            try:
                state.check_weights()
            except DivergedError as error:
                self._drop(state, error)
                continue
            # validations count, so that the states before and after one have different numbers
            number = self._step(state.epoch, state.batch) + state.epoch - 1
            if distributed.IS_MAIN:
                save_checkpoint(folder.path, number, state.checkpoint())
        distributed.wait_for_all()  # no process may end, and take the others with it, before all is saved
        self._last_save = time.monotonic()

    def _step(self, epoch: int, batch: int) -> int:
        """How many steps precede this batch of this epoch."""
        return (epoch - 1) * self.batches_per_epoch + batch
