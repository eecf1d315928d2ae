"""How fast a GPU could train at best: seconds per image that its arithmetic and its memory allow. Needs no GPU.

One bfloat16 step of this project's own training, from uint8 pixels to the optimiser, is traced with fake tensors. Each
operation takes the longer of two times: its FLOPs at the GPU's rate, or the bytes that it must read and write at the
GPU's bandwidth. Launching operations takes no time here, so for small images or batches a GPU is further from these
limits.

`python -m benchmarks.gpu.limits` prints the table of docs/performance.md.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from moonshine.data.normalisation import Normalisation
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import Teacher, cast_weights, fold_batch_norms
from moonshine.errors import MoonshineError
from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.networks import build_network, place
from moonshine.params import Params, read_params
from moonshine.params.schema import Augmentation, Recipe
from moonshine.project import records
from moonshine.project.records import Architecture
from moonshine.project.rows import Row, parse_model
from moonshine.training.objective import CrossEntropy, Objective
from moonshine.training.state import TrainingState

CPU = torch.device("cpu")
aten = torch.ops.aten


@dataclass(frozen=True)
class Ceilings:
    """What a GPU reaches at best."""

    name: str
    flops: float
    """Per second, of bfloat16 matrix products."""
    bandwidth: float
    """Bytes per second, read and written."""


H100 = Ceilings("H100 SXM", 798e12, 3.0e12)
"""Measured on one, with a large product and a copy; the specification says 989 dense bfloat16 TFLOP/s, 3.35 TB/s."""
A100 = Ceilings("A100 SXM 40 GB", 250e12, 1.4e12)
"""Guessed, as 0.8 and 0.9 of the specification's 312 dense bfloat16 TFLOP/s and 1.555 TB/s."""


@dataclass(frozen=True)
class Limits:
    """Seconds per image of a training step."""

    convolutions: float
    """Convolutions and matrix products alone, each pass (forward, gradient of the data, gradient of the weights) at
    full rate or bandwidth."""
    eager: float
    """Every operation that eager PyTorch launches."""
    compiled: float
    """The same with each pointwise operation fused into a neighbour, which leaves it the reading of further operands,
    such as the shortcut of a residual block."""


@dataclass(frozen=True)
class Operation:
    """What one kernel does for a batch."""

    flops: int
    """Of a convolution or a matrix product; 0 for all others."""
    bytes: int
    """Read and written."""
    fused_bytes: int
    """What remains of `bytes` if pointwise operations are fused."""

    def seconds(self, ceilings: Ceilings, fused: bool = False) -> float:
        moved = self.fused_bytes if fused else self.bytes
        return max(self.flops / ceilings.flops, moved / ceilings.bandwidth)


def limit(student: Architecture, teacher: Architecture | None, size: int, batch: int, ceilings: Ceilings) -> Limits:
    """Limits of training the student on images of `size` x `size` pixels in batches of `batch` images.

    With a teacher, by attention transfer at all attention layers; without one, from the labels.
    """
    layers = attention_layers_of(student)
    objective = Distillation(layers, beta=1.0, groups=range(1, len(layers) + 1)) if teacher else CrossEntropy()
    return limits(training_step(student, objective, teacher, size, batch), batch, ceilings)


def limits(operations: Iterable[Operation], batch: int, ceilings: Ceilings) -> Limits:
    """Limits of a step over a batch of `batch` images that consists of these operations."""
    operations = list(operations)
    return Limits(
        sum(operation.seconds(ceilings) for operation in operations if operation.flops) / batch,
        sum(operation.seconds(ceilings) for operation in operations) / batch,
        sum(operation.seconds(ceilings, fused=True) for operation in operations) / batch,
    )


def training_step(
    student: Architecture, objective: Objective, teacher: Architecture | None, size: int, batch: int
) -> list[Operation]:
    """The operations of one training step in bfloat16."""
    state = TrainingState(Row("train", "student"), student, objective, _recipe(batch), 0, CPU)
    outputs_of_teacher = _teacher(teacher) if teacher else lambda images: None
    channels = student["in_channels"]
    statistics: records.Normalisation = {"mean": [0.0] * channels, "std": [1.0] * channels}
    with FakeTensorMode(allow_non_fake_inputs=True):
        normalise = Normalisation(statistics, CPU)
        pixels = torch.empty(batch, size, size, channels, dtype=torch.uint8)
        labels = torch.zeros(batch, dtype=torch.int64)
        with Trace() as trace:
            images = normalise.channels_last(pixels)
            state.step(images, labels, outputs_of_teacher(images))
    return trace.operations


def _recipe(batch: int) -> Recipe:
    return Recipe(
        epochs=1,
        batch_size=batch,
        lr=0.1,
        lr_steps=[],
        lr_factor=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        augmentation=Augmentation(flip=True),
        precision="bfloat16",
        compile=False,
        threads=1,
    )


def _teacher(architecture: Architecture) -> Teacher:
    """As `Teacher.load` makes it, without weights."""
    network, layers = build_network(architecture).to_empty(device=CPU).eval(), attention_layers_of(architecture)
    fold_batch_norms(network, keep=layers)
    cast_weights(network, torch.bfloat16)
    return Teacher(place(network, CPU), layers, torch.bfloat16)


POINTWISE = {aten._to_copy.default, aten.masked_fill_.Scalar}
"""Those that PyTorch does not tag as pointwise."""
FREE = ("prim::device", "aten::empty", "aten::new_empty", "aten::as_strided", "profiler::")
"""Beginnings of the names of operations that move nothing, besides views."""


class Trace(TorchDispatchMode):
    """Notes what each operation inside it does."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.name().startswith(FREE):
            return func(*args, **kwargs)
        with self:  # in inference mode, operations arrive here that consist of others
            result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            result = func(*args, **kwargs)
            if not func.is_view:
                self.operations += _operations(func, args, kwargs, result)
        return result


def _operations(func: Any, args: Any, kwargs: Any, result: Any) -> list[Operation]:
    if func is aten.convolution.default:
        images, weight, bias = args[:3]
        passes = [_pass_of_convolution(images, weight, result)]
        if bias is not None:  # added by a kernel of its own, where it can be fused
            passes.append(Operation(0, 2 * _bytes(result), 0))
        return passes
    if func is aten.convolution_backward.default:
        gradient, images, weight, *_, (of_images, of_weight, _) = args
        return [_pass_of_convolution(images, weight, gradient)] * (of_images + of_weight)
    read, written = _tensors((args, kwargs)), _tensors(result)
    moved = _bytes(*read, *(read if result is None else written))  # what returns nothing changes what it reads
    if func.overloadpacket in flop_registry:
        return [Operation(flop_registry[func.overloadpacket](*args, **kwargs, out_val=result), moved, moved)]
    if torch.Tag.pointwise in func.tags or func in POINTWISE:
        sizes = [_bytes(tensor) for tensor in read]
        return [Operation(0, moved, sum(sizes) - max(sizes, default=0))]
    # batch norm reads its inputs twice: for sums over the batch, and to compute the result from these
    if func is aten._native_batch_norm_legit.default:
        moved += _bytes(args[0])
    elif func is aten.native_batch_norm_backward.default:
        moved += _bytes(args[0], args[1])
    return [Operation(0, moved, moved)]


def _pass_of_convolution(images: torch.Tensor, weight: torch.Tensor, output: torch.Tensor) -> Operation:
    """Each pass reads two of the three tensors, writes the third, and has as many FLOPs."""
    moved = _bytes(images, weight, output)
    return Operation(2 * output.numel() * weight[0].numel(), moved, moved)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _bytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


FFCV_SECONDS = 187.3 * 60 / (88 * 1_281_167)
"""Per image: ffcv trains ResNet-18 on ImageNet in mixed precision, for 88 epochs in 187.3 minutes, on one of the eight
A100s of a p4d.24xlarge instance (https://github.com/libffcv/ffcv-imagenet, rn18_88_epochs)."""
FFCV_BATCH = 1024
FFCV_SIZES = {160: 0.75, 192: 0.25}
"""Side of ffcv's images, in pixels -> share of the epochs."""
GROUPED = 0.65
"""Guessed: how fast steps with grouped or depthwise convolutions are, relative to the same share of their floor."""
IMAGENET = 1_281_167
"""Training images."""


def ffcv_share() -> Limits:
    """How much of each limit ffcv's training reaches, as ratios: seconds of the limit over seconds that it took."""
    network: Architecture = {"arch": "resnet18", "classes": 1000, "in_channels": 3}
    of_sizes = {size: limit(network, None, size, FFCV_BATCH, A100) for size in FFCV_SIZES}
    means = (
        sum(share * getattr(of_sizes[size], field.name) for size, share in FFCV_SIZES.items())
        for field in fields(Limits)
    )
    return Limits(*(seconds / FFCV_SECONDS for seconds in means))


HEADER = ("Row", "MACs", "Bytes", "Limit", "Compiled floor", "Eager floor", "Expected", "Hours")


def table(params: Params, ceilings: Ceilings) -> str:
    """Markdown: a line for each trained row of an ImageNet experiment, after one for the teacher's network."""
    share = ffcv_share().eager
    teacher = Row("train", parse_model(params.teacher)[0].network)
    lines = {row: Line.of(params, row, ceilings, share) for row in (teacher, *params.seeded_rows)}
    trained = [lines[row] for row in params.seeded_rows]
    rates = [sum(line.expected[end] for line in trained) for end in (0, -1)]
    hours = [sum(line.hours[end] for line in trained) for end in (0, -1)]
    cells = [
        HEADER,
        (f"{params.title(Row('fetch', teacher.network))} from scratch, for comparison", *lines.pop(teacher).cells),
        *((params.title(row), *line.cells) for row, line in lines.items()),
        ("All but the first", *[""] * (len(HEADER) - 3), _rates(rates), _range(hours, "{:.0f}")),
    ]
    header, *others = (f"| {' | '.join(line)} |\n" for line in cells)
    return "".join((header, "|---", "|---:" * (len(HEADER) - 1), "|\n", *others))


@dataclass(frozen=True)
class Line:
    """What the table has of one row, on one GPU."""

    macs: float
    """Of a step, per image; so is `bytes`."""
    bytes: float
    limits: Limits
    expected: list[float]
    """Images per second, from and to, or one value."""
    hours: list[float]
    """For one seed, likewise."""

    @classmethod
    def of(cls, params: Params, row: Row, ceilings: Ceilings, share: float) -> "Line":
        """Expects `share` of the eager floor."""
        recipe = params.recipe_of(row)
        operations, batch = _step_of(params, row), recipe.batch_size
        best = limits(operations, batch, ceilings)
        network = build_network(params.architecture(row.network))
        grouped = any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in network.modules())
        expected = [share * speed / best.eager for speed in ((GROUPED, 1.0) if grouped else (1.0,))]
        return cls(
            sum(operation.flops for operation in operations) / 2 / batch,
            sum(operation.bytes for operation in operations) / batch,
            best,
            expected,
            [recipe.epochs * (recipe.images or IMAGENET) / rate / 3600 for rate in reversed(expected)],
        )

    @property
    def cells(self) -> list[str]:
        best = self.limits
        return [
            f"{self.macs / 1e9:.2f} G",
            f"{self.bytes / 1e6:.0f} MB",
            *(_rates([1 / seconds]) for seconds in (best.convolutions, best.compiled, best.eager)),
            _rates(self.expected),
            _range(self.hours, "{:.1f}"),
        ]


def _rates(images_per_second: Iterable[float]) -> str:
    return _range((round(rate, -2) for rate in images_per_second), "{:,.0f}")


def _range(values: Iterable[float], style: str) -> str:
    return " to ".join(map(style.format, values))


def _step_of(params: Params, row: Row) -> list[Operation]:
    """A step of the row's training."""
    student = params.architecture(row.network)
    size, batch = params.training_size(row), params.recipe_of(row).batch_size
    if not row.method:
        return training_step(student, CrossEntropy(), None, size, batch)
    method = params.methods[row.method].objective
    teacher = params.architecture(parse_model(params.teacher)[0].network)
    return training_step(student, Distillation(attention_layers_of(student), **method), teacher, size, batch)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.limits", description=__doc__)
    parser.add_argument(
        "experiment",
        nargs="?",
        type=Path,
        default=Path("experiments/imagenet-bf16.yaml"),
        help="an ImageNet experiment in bfloat16 (default: %(default)s)",
    )
    path = parser.parse_args(arguments).experiment
    try:
        params = read_params(path)
    except MoonshineError as error:
        parser.error(str(error))
    if params.dataset.source != "imagenet":
        parser.error(f"{path}: the hours are those of ImageNet; choose an experiment with dataset.source: imagenet")
    for row in params.seeded_rows:
        if (precision := params.recipe_of(row).precision) != "bfloat16":
            key = params.recipe_key(row, "precision")
            parser.error(f"{path}: {key} is {precision}; the speeds are those of bfloat16")
    print(table(params, H100), end="")


if __name__ == "__main__":
    main()
