"""Speed of single operations, of a step as one CUDA graph, and where the time of a step goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.functional import conv2d

from benchmarks.gpu.machine import Context
from benchmarks.gpu.roofline import measured_ceilings
from benchmarks.gpu.speeds import CLASSES, COMPARED, TEACHER
from benchmarks.gpu.subjects import BFLOAT16, batches, make_state, make_teacher
from benchmarks.gpu.timing import WARM_UP, laps_and_rounds, memory_permitting, speed_scale, time_calls
from moonshine.distillation.attention_transfer import attention_map
from moonshine.training.state import TrainingState

CONVOLUTIONS = ((64, 56), (128, 28), (256, 14), (512, 7))
"""(channels, side of the map) of ResNet's four layers at 224 pixels."""
SHOWN_KERNELS = 15


def ceilings(context: Context) -> None:
    """What this device can do at best: copying, a matrix product, and dense 3x3 convolutions."""
    best = measured_ceilings(context)
    context.report.speed("ceiling, copying", f"{best.bandwidth / 1e9:.0f} GB/s", bytes_per_second=best.bandwidth)
    name = "ceiling, matrix product, bfloat16"
    context.report.speed(name, f"{best.flops / 1e12:.1f} TFLOP/s", flops=best.flops)
    for channels, height in CONVOLUTIONS:
        features, weight = _features_and_weight(context, channels, height, 1, torch.channels_last)
        seconds = time_calls(context, lambda: conv2d(features, weight, padding=1)).seconds  # noqa: B023 (called here)
        rate = 2 * weight.numel() * features.numel() / channels / seconds
        name = f"ceiling, 3x3 convolution, {channels} x {height} x {height}"
        context.report.speed(name, f"{rate / 1e12:.1f} TFLOP/s", flops=rate)


def _features_and_weight(
    context: Context, channels: int, side: int, groups: int, layout: torch.memory_format
) -> tuple[torch.Tensor, torch.Tensor]:
    count = speed_scale(context)[1]
    shapes = (count, channels, side, side), (channels, channels // groups, 3, 3)
    features, weight = (
        torch.randn(shape, device=context.device, dtype=torch.bfloat16).to(memory_format=layout).requires_grad_()
        for shape in shapes
    )
    return features, weight


LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}


def depthwise(context: Context) -> None:
    """Depthwise and grouped convolutions by layout, and what cuDNN's determinism costs them."""
    cudnn: Any = torch.backends.cudnn
    was_deterministic = cudnn.deterministic
    for channels, side in CONVOLUTIONS[-1:] if context.tiny else CONVOLUTIONS:
        for stride in (1, 2) if side > 7 else (1,):
            for groups, kind in ((channels, "depthwise"), (4, "G(4)")):
                for layout in LAYOUTS:
                    for deterministic in (True, False) if layout == "channels last" else (True,):
                        cudnn.deterministic = deterministic
                        name = f"{kind}, {channels} x {side} x {side}, stride {stride}, {layout}, {deterministic=}"
                        try:
                            _time_convolution(context, name, channels, side, stride, groups, LAYOUTS[layout])
                        except RuntimeError as error:  # cuDNN may have no such kernel
                            context.report.require(False, name, " ".join(str(error).split())[:200])
                        finally:
                            cudnn.deterministic = was_deterministic


def _time_convolution(
    context: Context, name: str, channels: int, side: int, stride: int, groups: int, layout: torch.memory_format
) -> None:
    features, weight = _features_and_weight(context, channels, side, groups, layout)

    def forward() -> torch.Tensor:
        return conv2d(features, weight, None, stride, 1, 1, groups)

    output = forward()
    gradient = torch.randn_like(output)
    forwards = time_calls(context, forward).seconds
    both = time_calls(context, lambda: torch.autograd.grad(forward(), (features, weight), gradient)).seconds
    backwards = max(both - forwards, 1e-9)
    moved = (features.numel() + output.numel()) * features.element_size()
    context.report.speed(
        name,
        f"forward {1e6 * forwards:.0f} us, {moved / forwards / 1e9:.0f} GB/s; "
        f"backward {1e6 * backwards:.0f} us, {2 * moved / backwards / 1e9:.0f} GB/s",
        forward_seconds=forwards,
        backward_seconds=backwards,
        bytes=moved,
    )


def maps(context: Context) -> None:
    """Attention maps of a ResNet-18's four layers, forward and backward, without the network."""
    count = speed_scale(context)[1]
    features = [
        _features_and_weight(context, channels, side, 1, torch.channels_last)[0] for channels, side in CONVOLUTIONS
    ]
    weights = [torch.rand(count, side, side, device=context.device) for _, side in CONVOLUTIONS]

    def forward_and_backward() -> None:
        found = [attention_map(each) for each in features]
        torch.autograd.grad(found, features, weights)

    time_calls(context, forward_and_backward).report(context, "attention maps", count)


def graph(context: Context) -> None:
    """A whole step, teacher included, replayed as one CUDA graph: bytes and speed compared with eager.

    Training itself does not use graphs. Without a GPU nothing is captured, but the step that would be is compared.
    """
    size, count = speed_scale(context)
    subjects = [
        ("resnet18", TEACHER, size, count),
        ("resnet34-sep", TEACHER, size, count),
        ("resnet34-sep", TEACHER, size, min(count, 32)),
        ("wrn-40-2-sep", "wrn-40-2", 32, min(128, count)),
    ]
    for student, teacher, pixels, images in subjects[-1:] if context.tiny else subjects:
        name = f"graph, {student} AT, {images} images of {pixels} pixels"
        try:
            with memory_permitting(context, name):
                _compare_with_graph(context, name, student, teacher, pixels, images)
        except RuntimeError as error:  # an operation that cannot be captured
            context.report.require(False, name, " ".join(str(error).split())[:200])


def _compare_with_graph(context: Context, name: str, student: str, teacher: str, size: int, count: int) -> None:
    ((images, labels),) = batches(1, size, count, context.device, CLASSES)
    of_teacher = make_teacher(teacher, context.device, BFLOAT16, classes=CLASSES)
    eager, captured = (make_state(student, context.device, BFLOAT16, classes=CLASSES) for _ in range(2))
    usual = time_calls(context, lambda: eager.step(images, labels, of_teacher(images)))
    laps, rounds = laps_and_rounds(context)
    with _capturable_steps():
        replay = _captured(context, lambda: captured.step(images, labels, of_teacher(images)))
        for _ in range(laps * rounds):
            replay()
        pairs = zip(eager.network.state_dict().values(), captured.network.state_dict().values())
        is_same = all(torch.equal(ours, replayed) for ours, replayed in pairs)
        replayed = time_calls(context, replay)
    context.report.require(is_same, f"{name}: the same bytes")
    usual.report(context, f"{name}, eager", count)
    replayed.report(context, f"{name}, replayed", count)


def _captured(context: Context, step: Callable[[], None]) -> Callable[[], None]:
    """A function that repeats the step, after WARM_UP steps; the step itself where there are no graphs."""
    if not context.on_gpu:
        for _ in range(WARM_UP):
            step()
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        step()
    return recorded.replay


@contextmanager
def _capturable_steps() -> Iterator[None]:
    """What keeps a step from being a graph: a tensor that each step replaces, and seeding (no network here draws)."""
    note_fault = TrainingState._note_fault

    def note_in_place(self: TrainingState, batch_means: torch.Tensor, norm: torch.Tensor | None) -> torch.Tensor:
        kept = self._fault
        flag = note_fault(self, batch_means, norm)
        self._fault = kept.copy_(self._fault)
        return flag

    with (
        patch.object(TrainingState, "_note_fault", note_in_place),
        patch.object(TrainingState, "_seed_dropout", lambda self: None),
    ):
        yield


def profile(context: Context) -> None:
    """The kernels of one step that take most of its time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    size, count = speed_scale(context)
    ((images, labels),) = batches(1, size, count, context.device, CLASSES)
    of_teacher = make_teacher(TEACHER, context.device, BFLOAT16, classes=CLASSES)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if context.on_gpu else [])]
    for name in COMPARED[:1] if context.tiny else COMPARED:
        state = make_state(name, context.device, BFLOAT16, classes=CLASSES)

        def step() -> None:
            state.step(images, labels, of_teacher(images))  # noqa: B023 (called here)

        seconds = time_calls(context, step).seconds
        with recording(activities=activities) as recorded:
            step()
            if context.on_gpu:
                torch.cuda.synchronize()
        _report_kernels(context, name, recorded.key_averages(), seconds)


def _report_kernels(context: Context, name: str, averages: Any, seconds: float) -> None:
    key = "self_device_time_total" if context.on_gpu else "self_cpu_time_total"
    kernels = [event for event in averages if not context.on_gpu or event.device_type.name == "CUDA"]
    kernels.sort(key=lambda event: -getattr(event, key))
    busy = sum(getattr(event, key) for event in kernels) / 1e6
    launches = sum(event.count for event in kernels)
    text = f"{launches} launches, busy for {1e3 * busy:.1f} of {1e3 * seconds:.1f} ms"
    context.report.speed(f"profile {name} AT", text, launches=launches, busy_seconds=busy, seconds=seconds)
    for event in kernels[:SHOWN_KERNELS]:
        each = getattr(event, key) / 1e6
        text = f"{1e3 * each:.3f} ms in {event.count} launches: {event.key[:100]}"
        context.report.speed(f"profile {name} AT, kernel", text, seconds=each, launches=event.count)
