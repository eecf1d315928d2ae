"""Speed of training steps: ours, and the same by a plain loop and by torchdistill."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from benchmarks.gpu.machine import Context
from benchmarks.gpu.roofline import share_of_limits
from benchmarks.gpu.subjects import (
    BFLOAT16,
    TF32,
    arithmetic,
    batches,
    make_architecture,
    make_state,
    make_teacher,
    relative_error,
)
from benchmarks.gpu.timing import Timing, memory_permitting, speed_scale, time_calls
from benchmarks.gpu.worker import start_worker
from benchmarks.separate_project import ROOT
from moonshine.distillation.teacher import Teacher
from moonshine.models.networks import initialise
from moonshine.training.state import PRECISIONS

STUDENTS = "resnet18", "resnet34-sep", "resnet34-g4", "resnet18-half"
COMPARED = STUDENTS[:2]
TEACHER, CLASSES = "resnet34", 1000
LAYERS = "layer1", "layer2", "layer3", "layer4"
PEER = ROOT / ".venv-peer/bin/python"


def steps(context: Context) -> None:
    """Whole training steps, from scratch and with attention transfer (AT), of which the teacher's pass is a part."""
    for kind in (BFLOAT16,) if context.tiny else (BFLOAT16, TF32):
        for name in STUDENTS:
            for attention in (False, True):
                _report_step(context, name, kind, attention)
    _better_heuristics(context)


def compiled_steps(context: Context) -> None:
    """Steps of compiled networks, and the price of choosing kernels without measuring them."""
    if context.tiny:
        context.report.leave_out("compiled steps", "they compile for minutes; the check named compiled rehearses it")
        return
    for name in COMPARED:
        _report_step(context, name, BFLOAT16, True, compiled=True)
    torch.compiler.reset()
    _report_step(context, COMPARED[0], BFLOAT16, True, compiled=True, by_measuring=True)


def _report_step(
    context: Context,
    name: str,
    kind: str,
    attention: bool,
    *,
    compiled: bool = False,
    by_measuring: bool = False,
) -> None:
    how = f"{name}{' AT' if attention else ''}, {kind}{', compiled' if compiled else ''}"
    how += ", kernels chosen by measuring" if by_measuring else ""
    with memory_permitting(context, f"step {how}"):
        timing = _time_step(context, name, kind, attention, compiled, by_measuring)
        timing.report(context, f"step {how}", speed_scale(context)[1])
        if kind == BFLOAT16 and not compiled and (context.on_gpu or name == STUDENTS[0]):
            _report_shares(context, how, name, attention, timing.seconds)


def _report_shares(context: Context, how: str, name: str, attention: bool, seconds: float) -> None:
    student, teacher = (make_architecture(each, CLASSES) for each in (name, TEACHER))
    shares = share_of_limits(context, student, teacher if attention else None, seconds)
    text = f"{shares['share_of_limit']:.2f} of the limit, {shares['share_of_eager_floor']:.2f} of the eager floor"
    context.report.speed(f"step {how}, compared with docs/performance.md's table on paper", text, **shares)


def _time_step(
    context: Context,
    name: str,
    kind: str,
    attention: bool = True,
    compiled: bool = False,
    by_measuring: bool = False,
) -> Timing:
    """`by_measuring` lets the compiler, which works in the first step, choose the fastest of several kernels."""
    size, count = speed_scale(context)
    ((images, labels),) = batches(1, size, count, context.device, CLASSES)
    with arithmetic(kind):
        state = make_state(name, context.device, kind, attention=attention, classes=CLASSES, compiled=compiled)
        teacher = make_teacher(TEACHER, context.device, kind, classes=CLASSES, compiled=compiled) if attention else None
        with _compiling_by_measuring() if by_measuring else nullcontext():
            timing = time_calls(context, lambda: state.step(images, labels, teacher(images) if teacher else None))
    state.check()
    return timing


def _compiling_by_measuring() -> AbstractContextManager[None]:
    from torch._inductor import config

    return config.patch(deterministic=False)


def time_our_step(context: Context, name: str, kind: str) -> dict[str, Any]:
    """The timing of a step with attention transfer, as plain values."""
    return asdict(_time_step(context, name, kind))


def _better_heuristics(context: Context) -> None:
    """cuDNN's other way to choose a kernel without measuring, which is read once per process."""
    for name in COMPARED if context.on_gpu else ():
        found = start_worker(context, "our_step", name, BFLOAT16, TORCH_CUDNN_USE_HEURISTIC_MODE_B="1").result()
        Timing(**found).report(context, f"step {name} AT, bfloat16, cuDNN's mode B", speed_scale(context)[1])


def teacher(context: Context) -> None:
    """The teacher alone: as it is, with weights cast in each pass, and with what follows a convolution fused."""
    size, count = speed_scale(context)
    ((images, _),) = batches(1, size, count, context.device)
    usual, casting = (make_teacher(TEACHER, context.device, BFLOAT16, classes=CLASSES) for _ in range(2))
    time_calls(context, lambda: usual(images)).report(context, "teacher", count)
    expected = usual(images).logits
    casting.network.float()
    time_calls(context, lambda: casting(images)).report(context, "teacher, weights cast in each pass", count)
    is_same = torch.equal(casting(images).logits, expected)
    context.report.require(is_same, "teacher, weights cast in each pass: the same bytes")
    if not context.on_gpu:
        context.report.leave_out("teacher, fused", "needs a GPU")
        return
    usual.network.to(torch.bfloat16)
    with torch.inference_mode():
        timing = time_calls(context, lambda: _fused_forward(usual, images))
        timing.report(context, "teacher, fused, without attention maps", count)
        error = relative_error(_fused_forward(usual, images), expected)
    context.report.note("teacher, fused", f"logits {error:.1e} from the teacher's")


def _fused_forward(teacher: Teacher, images: torch.Tensor) -> torch.Tensor:
    """A ResNet of basic blocks, with batch norms folded and bfloat16 weights, by cuDNN's fused convolutions."""
    network: Any = teacher.network
    features = network.maxpool(network.relu(network.conv1(images.to(torch.bfloat16))))
    for layer in LAYERS:
        for block in network.get_submodule(layer):
            shortcut = features if block.downsample is None else block.downsample(features)
            first, second = ((c.stride, c.padding, c.dilation, c.groups) for c in (block.conv1, block.conv2))
            inner = torch.cudnn_convolution_relu(features, block.conv1.weight, block.conv1.bias, *first)
            features = torch.cudnn_convolution_add_relu(
                inner, block.conv2.weight, shortcut, 1.0, block.conv2.bias, *second
            )
    return network.fc(torch.flatten(network.avgpool(features), 1)).float()


def peers(context: Context) -> None:
    """The same steps by a plain loop, in channels last too, and by torchdistill if `make bench` has installed it."""
    count = speed_scale(context)[1]
    for name in COMPARED[:1] if context.tiny else COMPARED:
        for kind in (BFLOAT16,) if context.tiny else (BFLOAT16, TF32):
            with memory_permitting(context, f"plain loop {name} AT, {kind}"):
                _time_plain_step(context, name, kind).report(context, f"plain loop {name} AT, {kind}", count)
            if not PEER.exists():
                continue
            found = start_worker(context, "torchdistill_step", name, kind, python=str(PEER)).result()
            Timing(**found).report(context, f"torchdistill {name} AT, {kind}", count)
    if not PEER.exists():
        context.report.leave_out("torchdistill", f"no {PEER.relative_to(ROOT)}, which make bench creates")


def _autocast(context: Context, kind: str) -> Any:
    return nullcontext() if kind == TF32 else torch.autocast(context.device.type, PRECISIONS[kind])


def _time_plain_step(context: Context, name: str, kind: str) -> Timing:
    """As a reader of the papers would write it with PyTorch's documentation at hand."""
    size, count = speed_scale(context)
    ((images, labels),) = batches(1, size, count, context.device, CLASSES)
    student, teacher = (_plain_network(context, each) for each in (name, TEACHER))
    teacher.eval()
    features: dict[tuple[str, str], torch.Tensor] = {}
    for side, network in (("student", student), ("teacher", teacher)):
        for layer in LAYERS:
            network.get_submodule(layer).register_forward_hook(
                lambda module, inputs, output, key=(side, layer): features.__setitem__(key, output)
            )
    optimizer = torch.optim.SGD(student.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        with _autocast(context, kind):
            with torch.no_grad():
                teacher(images)
            loss = cross_entropy(student(images), labels)
            for layer in LAYERS:
                of_student, of_teacher = (_attention(features[side, layer]) for side in ("student", "teacher"))
                loss = loss + 750.0 * (of_student - of_teacher).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with arithmetic(kind):
        return time_calls(context, step)


def _plain_network(context: Context, name: str) -> nn.Module:
    network = initialise(make_architecture(name, CLASSES), 0)
    return network.to(context.device).to(memory_format=torch.channels_last)


def _attention(features: torch.Tensor) -> torch.Tensor:
    return normalize(features.float().square().mean(1).flatten(1))


def time_torchdistill(context: Context, name: str, kind: str) -> dict[str, Any]:
    """The timing of a step by torchdistill's training box, as plain values."""
    from benchmarks.steps import make_box

    size, count = speed_scale(context)
    ((images, labels),) = batches(1, size, count, context.device, CLASSES)
    box = make_box("224", name, context.device)

    def step() -> None:
        with _autocast(context, kind):
            loss = box.forward_process(images, labels, None)
        box.post_forward_process(loss)

    with arithmetic(kind):
        return asdict(time_calls(context, step))
