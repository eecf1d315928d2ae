"""One network in training: weights, their average, optimiser and position."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from moonshine.data.labels import Labels, correct_predictions
from moonshine.data.order import derived_seed
from moonshine.data.shares import summed
from moonshine.errors import DivergedError
from moonshine.models.networks import compile_network, initialise, place
from moonshine.models.norms import zero_residual_norms
from moonshine.params.schema import Recipe
from moonshine.project.records import Architecture
from moonshine.project.rows import Row
from moonshine.runtime import distributed
from moonshine.training.averaging import WeightAverage
from moonshine.training.objective import Objective
from moonshine.training.optimizer import make_optimizer
from moonshine.training.replicas import average_gradients
from moonshine.training.schedule import learning_rate

PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,  # models.arithmetic.make_deterministic sets the rest
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
UNKNOWN = "an unknown processor"
SMALLEST_SCALE = 2.0**-14
"""float16 gradients that overflow even at this loss scale are not caused by the scale."""

CURE = "lower recipe.lr or the weights of the method's losses"


class TrainingState:
    """A network, its objective and its optimiser, advanced batch by batch.

    `epoch` (from 1) and `batch` (from 0) tell which batch comes next; `history` has one dict per finished epoch;
    `trained_on` names the processors that have taken steps.
    """

    def __init__(
        self,
        row: Row,
        architecture: Architecture,
        objective: Objective,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        start: Mapping[str, torch.Tensor] | None = None,
        steps_per_epoch: int = 1,
    ):
        """`start` has the tensors that the network begins with instead of its random ones.

        `steps_per_epoch` has no effect on recipes without a warm-up, an average, and a learning rate that changes
        within an epoch.
        """
        self.row, self.architecture, self.objective = row, architecture, objective
        self.recipe, self.seed, self.device = recipe, seed, device
        self._steps_per_epoch = steps_per_epoch
        network = initialise(architecture, derived_seed("initialisation", seed))
        if recipe.zero_init_residual:
            zero_residual_norms(network)
        if start:
            network.load_state_dict({**network.state_dict(), **start})
        self.network = place(network, device).train()
        self._average = WeightAverage(self.network, recipe.ema_decay) if recipe.ema_decay else None
        objective.attach(self.network)
        self._forward = compile_network(self.network) if recipe.compile else self.network
        self._optimizer = make_optimizer(self.network, recipe)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.epoch, self.batch = 1, 0
        self.history: list[dict[str, float]] = []
        self.trained_on: list[str] = []
        # the first step whose loss or gradient was not finite: its number (from 1), the loss and its parts
        self._fault = torch.zeros(len(objective.parts) + 2, dtype=torch.float64, device=device)
        self._start_epoch()

    def _start_epoch(self) -> None:
        # loss, its parts, correct predictions, images: summed on the device, read only on demand
        self._sums = torch.zeros(len(self.objective.parts) + 3, dtype=torch.float64, device=self.device)

    def step(self, images: torch.Tensor, labels: Labels, teacher: Any, weight: float = 1.0) -> None:
        """Learn from one batch, or from this process's share of it, with its loss weighted by `weight`.

        A non-finite loss or gradient stops all updates from that step on; see `check`.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate(self.batch)
        self._seed_dropout()
        precision = PRECISIONS[self.recipe.precision]
        with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
            logits = self._forward(images)
        loss, parts = self.objective(logits, labels, teacher, self.epoch)
        self._scaler.scale(loss if weight == 1 else loss * weight).backward()
        average_gradients(self.network)
        norm = self._clip_gradients()
        means = torch.stack([loss.detach().double(), *(part.detach().double() for part in parts)])
        sums = self._summed(means, logits.detach(), labels)
        if self._scaler.is_enabled():  # float16 may overflow; the scaler skips the step, and so do the means
            sums = torch.where(torch.isfinite(sums).all(), sums, 0)
        else:
            batch_means = sums[:-2] / sums[-1]
            fault = self._note_fault(batch_means, norm)
            self._optimizer.found_inf = fault  # type: ignore[attr-defined]  # as GradScaler
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)  # now, so that the next forward pass can use their memory
        if self._average:
            self._average.update((self.epoch - 1) * self._steps_per_epoch + self.batch)
        self._sums += sums
        self.batch += 1

    @property
    def result(self) -> nn.Module:
        """What is validated and published: the average of the weights if the recipe has one, else the network."""
        return self._average.network if self._average else self.network

    def _learning_rate(self, batch: int) -> float:
        return learning_rate(self.recipe, self.epoch, batch, self._steps_per_epoch)

    def _clip_gradients(self) -> torch.Tensor | None:
        """Limit the L2 norm of all gradients and return what it was, if the recipe has a limit."""
        if self.recipe.clip_grad_norm is None:
            return None
        self._scaler.unscale_(self._optimizer)
        norm = self._gradient_norm()
        torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), self.recipe.clip_grad_norm, norm)
        return norm

    def _gradient_norm(self) -> torch.Tensor:
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _seed_dropout(self) -> None:
        """Make randomness inside a network depend on the step alone, never on what ran before.

        torch.manual_seed would seed all kinds of devices, which takes a hundred times as long.
        """
        seed = derived_seed("step", self.seed, self.epoch, self.batch) + distributed.RANK
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(seed)

    @staticmethod
    def _summed(means: torch.Tensor, logits: torch.Tensor, labels: Labels) -> torch.Tensor:
        """What the batch adds to the epoch's sums, over all processes."""
        correct = correct_predictions(logits, labels)
        of_share = [means * len(labels), correct.double()[None], correct.new_full((1,), len(labels))]
        return summed(torch.cat(of_share))

    def _note_fault(self, batch_means: torch.Tensor, norm: torch.Tensor | None) -> torch.Tensor:
        """1 if this step or an earlier one was not finite, which tells the fused optimiser to leave the weights alone.

        `norm` is that of the gradients before they were clipped; None if they were not.
        All on the device: on a GPU, checking every step would make the CPU wait for it.
        """
        finite = torch.isfinite(batch_means.sum() + (self._gradient_norm() if norm is None else norm))
        here = torch.cat([batch_means.new_full((1,), self.batch + 1), batch_means])
        self._fault = torch.where((self._fault[0] == 0) & ~finite, here, self._fault)
        return (self._fault[0] > 0).float()

    def check(self) -> None:
        """Raise DivergedError (exit code 7) if a step of this epoch was not finite. Waits for the device."""
        number, *values = self._fault.tolist()
        if self._scaler.is_enabled() and self._scaler.get_scale() < SMALLEST_SCALE:
            number, values = self.batch, list(self.training_means().values())
        if number:
            loss, *parts = values
            named = ", ".join(f"{name} {value:.4g}" for name, value in zip(self.objective.parts, parts))
            raise DivergedError(
                f"{self.row} seed {self.seed}: loss or gradient not finite in epoch {self.epoch}, "
                f"step {int(number) - 1}, lr {self._learning_rate(int(number) - 1):g} (loss {loss:.4g}: {named}); "
                + CURE
            )

    def diverged(self, what: str) -> DivergedError:
        """The error for non-finite values although every step was finite, as after an update with a far too high lr."""
        return DivergedError(
            f"{self.row} seed {self.seed}: {what} not finite in epoch {self.epoch}, after step {self.batch - 1}, "
            f"lr {self._learning_rate(max(self.batch - 1, 0)):g} ({self._means_in_words()}); {CURE}"
        )

    def _means_in_words(self) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in self.training_means().items())

    def check_weights(self) -> None:
        """Raise DivergedError (exit code 7) if a weight or a statistic is not finite. Waits for the device."""
        tensors = [tensor for tensor in self.network.state_dict().values() if tensor.is_floating_point()]
        largest = torch.nn.utils.get_total_norm(tensors, norm_type=float("inf"))
        if not torch.isfinite(summed(largest)):
            raise self.diverged("a weight")

    def training_means(self) -> dict[str, float]:
        """Means over the epoch so far: `loss`, each part, and `train_top1`, the error in per cent; NaN if no images."""
        loss, *parts, correct, count = self._sums.tolist()
        count = count or math.nan
        named = {name: value / count for name, value in zip(self.objective.parts, parts)}
        return {"loss": loss / count, **named, "train_top1": 100 * (1 - correct / count)}

    def finish_epoch(self, validation: dict[str, float]) -> None:
        """Record the epoch's means, the validation's and the last step's learning rate, and move to the next epoch."""
        measured = {f"val_{name}": validation[name] for name in ("loss", "top1", "top5")}
        lr = self._learning_rate(self.batch - 1)
        self.history.append({"epoch": self.epoch, "lr": lr, **self.training_means(), **measured})
        self.epoch, self.batch = self.epoch + 1, 0
        self._start_epoch()

    @property
    def finished(self) -> bool:
        return self.epoch > self.recipe.epochs

    def tensors(self) -> Iterator[torch.Tensor]:
        """What it keeps between steps, except gradients."""
        yield from self.network.state_dict().values()
        if self._average:
            yield from self._average.network.state_dict().values()
        for kept in self._optimizer.state.values():
            yield from (value for value in kept.values() if isinstance(value, torch.Tensor))

    def checkpoint(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, except randomness, which is a function of the position."""
        average = {"average": self._average.network.state_dict()} if self._average else {}
        return {
            "network": self.network.state_dict(),
            **average,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": self._sums,
            "history": self.history,
            "trained_on": self.trained_on,
        }

    def load_checkpoint(self, content: dict[str, Any]) -> None:
        self.network.load_state_dict(content["network"])
        if self._average:
            self._average.network.load_state_dict(content["average"])
        self._optimizer.load_state_dict(content["optimizer"])
        self._scaler.load_state_dict(content["scaler"])
        self.epoch, self.batch, self.history = content["epoch"], content["batch"], content["history"]
        self._sums = content["sums"].to(self.device)
        self.trained_on = content.get("trained_on", [UNKNOWN])  # not in older checkpoints, which `adopt` brings
