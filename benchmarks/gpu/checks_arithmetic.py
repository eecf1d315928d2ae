"""Checks of what one step or one validation computes on the device."""

import copy
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu.machine import Context
from benchmarks.gpu.subjects import (
    BFLOAT16,
    CHECKED,
    FLOAT16,
    IEEE,
    TF32,
    arithmetic,
    batches,
    checked_batches,
    digest,
    gradients,
    learn,
    make_architecture,
    make_state,
    make_teacher,
    relative_error,
)
from moonshine.errors import DivergedError
from moonshine.evaluation.measure import measure
from moonshine.models.networks import initialise, place
from moonshine.training.state import TrainingState

CPU = torch.device("cpu")

TOLERANCES = {IEEE: (1e-4, 1e-3, 1e-2), TF32: (5e-2, 0.3, math.inf), BFLOAT16: (0.2, 0.8, math.inf)}
"""Largest relative error of a loss, of the last layer's gradient and of the whole gradient, compared with the CPU's
float32.

In coarse arithmetic the whole gradient of an untrained deep network has no limit: batch norm amplifies rounding from
layer to layer, and ResNet-34 with depthwise convolutions points 70 degrees elsewhere if inputs change by 1e-3.
"""


def parity(context: Context) -> None:
    """Losses and gradients of a distillation step compared with the CPU's in float32."""
    (batch,) = checked_batches(context, 1, CPU)
    for name in ("resnet18", "resnet34-sep") if context.tiny else CHECKED[:4]:
        reference = _first_step(name, CPU, IEEE, *batch)
        for kind, limits in TOLERANCES.items():
            found = _first_step(name, context.device, kind, *batch)
            errors = (_worst_loss(found, reference), *_gradient_errors(found, reference))
            compared = zip(("losses", "last layer", "whole gradient"), errors, limits)
            text = ", ".join(f"{what} {error:.1e} (limit {limit:g})" for what, error, limit in compared)
            is_close = all(error <= limit for error, limit in zip(errors, limits))
            context.report.require(is_close, f"parity {name}, {kind}", text)


def _first_step(
    name: str, device: torch.device, kind: str, images: torch.Tensor, labels: torch.Tensor
) -> TrainingState:
    with arithmetic(kind):
        state = make_state(name, device, kind, weight_decay=0.0)
        teacher = make_teacher("resnet18", device, kind)
        on_device = images.to(device)
        state.step(on_device, labels.to(device), teacher(on_device))
    return state


def _worst_loss(found: TrainingState, reference: TrainingState) -> float:
    """The largest relative error of the loss and its parts."""
    expected, means = reference.training_means(), found.training_means()
    losses = [name for name in expected if name != "train_top1"]
    return max(abs(means[name] - expected[name]) / max(abs(expected[name]), 1e-12) for name in losses)


def _gradient_errors(found: TrainingState, reference: TrainingState) -> tuple[float, float]:
    """Relative errors of the gradient of the last layer and of all layers."""
    of_found, of_reference = gradients(found), gradients(reference)
    last = relative_error(of_found["fc.weight"], of_reference["fc.weight"])
    whole = [torch.cat([gradient.flatten() for gradient in each.values()]) for each in (of_found, of_reference)]
    return last, relative_error(*whole)


def evaluation(context: Context) -> None:
    """Errors and loss over a validation split compared with the CPU's, and that every image is counted."""
    images, of_batch = (40, 20) if context.tiny else (500, 50)
    network = initialise(make_architecture("resnet34-sep"), 3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.fill_(0.5)  # of an untrained network; with 1 all logits would be nearly equal
    size = 32 if context.tiny else 64
    expected = _measured(network, CPU, IEEE, size, of_batch, images)
    for kind, limit in ((IEEE, 1e-4), (TF32, 5e-2)):
        found = _measured(network, context.device, kind, size, of_batch, images)
        error = abs(found["loss"] - expected["loss"])
        top1 = abs(found["top1"] - expected["top1"])
        context.report.require(
            found["n"] == images and error <= limit and top1 <= 100 / images,
            f"evaluation, {kind}",
            f"{found['n']:.0f} of {images} images, loss {error:.1e} from the CPU's (limit {limit:g}), "
            f"top-1 error {top1:.2g} points",
        )


def _measured(
    network: torch.nn.Module, device: torch.device, kind: str, size: int, of_batch: int, images: int
) -> dict[str, float]:
    with arithmetic(kind):
        split: Any = _RandomSplit(device, size, of_batch, images)
        return measure(place(copy.deepcopy(network), device), split, lambda: None)


class _RandomSplit:
    """A validation split of random images."""

    def __init__(self, device: torch.device, size: int, of_batch: int, images: int):
        self.device, self.manifest = device, {"splits": {"val": {"count": images}}}
        self._batches = batches(images // of_batch, size, of_batch, device)

    def evaluation_batches(self, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield from self._batches


def deterministic(context: Context) -> None:
    """The same three steps twice give the same bytes; and the operations that torch lists as nondeterministic."""
    names = ("wrn-dilated", "mobilenet_v2") if context.tiny else CHECKED
    for kind in (IEEE, TF32, BFLOAT16, FLOAT16) if context.on_gpu else (IEEE, BFLOAT16, FLOAT16):
        for name in names:
            first, second = (_digest_of_three_steps(context, name, kind) for _ in range(2))
            context.report.require(first == second, f"deterministic {name}, {kind}", f"{first} {second}")
    alarms = _alarms_of_torch(context, names)
    context.report.note("operations that torch lists as nondeterministic", ", ".join(alarms) or "none")


def _digest_of_three_steps(context: Context, name: str, kind: str) -> str:
    with arithmetic(kind):
        state, teacher = make_state(name, context.device, kind), make_teacher(name, context.device, kind)
        learn(state, teacher, checked_batches(context, 3))
    return digest(state)


def _alarms_of_torch(context: Context, names: tuple[str, ...]) -> list[str]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for name in names:
                state, teacher = make_state(name, context.device), make_teacher(name, context.device)
                learn(state, teacher, checked_batches(context, 1))
    finally:
        torch.use_deterministic_algorithms(False)
    messages = {str(warning.message) for warning in caught}
    return sorted(message.split(" does not have")[0] for message in messages if "deterministic" in message)


def non_finite(context: Context) -> None:
    """From the first step that is not finite no weight changes, and the error names that step; float16 skips it."""
    for kind in (IEEE, BFLOAT16):
        state, teacher = (
            make_state("resnet34-sep", context.device, kind),
            make_teacher("resnet18", context.device, kind),
        )
        for number, (images, labels) in enumerate(checked_batches(context, 5)):
            if number == 2:
                before = _weights(state)
                images[0, 0, 0, 0] = math.inf
            state.step(images, labels, teacher(images))
        message = "nothing was raised"
        try:
            state.check()
        except DivergedError as error:
            message = str(error)
        is_frozen = all(torch.equal(weight, now) for weight, now in zip(before, _weights(state)))
        context.report.require(is_frozen and "step 2," in message, f"non-finite, {kind}", message[:120])
    _skipped_by_float16(context)


def _weights(state: TrainingState) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in state.network.parameters()]


def _skipped_by_float16(context: Context) -> None:
    state = make_state("resnet18", context.device, FLOAT16, attention=False)
    scale, before = state.checkpoint()["scaler"]["scale"], _weights(state)
    ((images, labels),) = checked_batches(context, 1)
    state.step(images * math.inf, labels, None)
    is_frozen = all(torch.equal(weight, now) for weight, now in zip(before, _weights(state)))
    smaller = state.checkpoint()["scaler"]["scale"]
    context.report.require(is_frozen and smaller < scale, "non-finite, float16", f"loss scale {scale:g} to {smaller:g}")
