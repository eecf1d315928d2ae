"""The limits of a GPU are those that can be computed by hand, and docs/performance.md has what the program prints."""

import math

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.gpu.limits import H100, Ceilings, Line, Operation, Trace, ffcv_share, limit, limits, main
from benchmarks.separate_project import ROOT
from moonshine.costs.counts import network_cost
from moonshine.params import read_params
from moonshine.project.records import Architecture
from moonshine.project.rows import Row

META = torch.device("meta")
EXPERIMENT = ROOT / "experiments/imagenet-bf16.yaml"


def meta(*shape: int, learns: bool = True) -> torch.Tensor:
    return torch.empty(*shape, dtype=torch.bfloat16, device=META, requires_grad=learns)


@pytest.mark.parametrize(("first", "passes"), [(False, 3), (True, 2)])
def test_each_pass_of_a_convolution_has_its_flops_and_bytes(first: bool, passes: int) -> None:
    """2 images of 8 channels and 10 x 10 pixels, to 16 channels in 2 groups: 3,200 values of 4 * 9 products each.

    The first convolution of a network needs no gradient of the images.
    """
    images, weight = meta(2, 8, 10, 10, learns=not first), meta(16, 4, 3, 3)
    with Trace() as trace:
        torch.nn.functional.conv2d(images, weight, padding=1, groups=2).backward(meta(2, 16, 10, 10))
    moved = 2 * (1_600 + 576 + 3_200)
    assert trace.operations == [Operation(2 * 3_200 * 36, moved, moved)] * passes


def test_the_slower_of_arithmetic_and_memory_counts() -> None:
    operations = [Operation(flops=600, bytes=100, fused_bytes=100), Operation(flops=0, bytes=40, fused_bytes=10)]
    found = limits(operations, 2, Ceilings("bound by arithmetic", flops=100, bandwidth=20))
    assert (found.convolutions, found.eager, found.compiled) == (6 / 2, (6 + 2) / 2, (6 + 0.5) / 2)
    found = limits(operations, 2, Ceilings("bound by memory", flops=100, bandwidth=10))
    assert (found.convolutions, found.eager, found.compiled) == (10 / 2, (10 + 4) / 2, (10 + 1) / 2)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(64, 64, 1, bias=False)
        self.norm = nn.BatchNorm2d(64)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (features + self.norm(self.convolution(features))).relu()


def test_a_residual_block_moves_what_its_passes_read_and_write() -> None:
    network, shape = Residual().to(torch.bfloat16), (256, 64, 56, 56)
    with FakeTensorMode(allow_non_fake_inputs=True):
        features, gradient = (torch.empty(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
        with Trace() as trace:
            network(features).backward(gradient)
    moved = [operation for operation in trace.operations if not operation.flops]
    a_pass = 2 * math.prod(shape)
    norm, addition, relu = 3 + 5, 3 + 3, 2 + 3  # passes forward and backward; the addition's gradients are added too
    assert sum(op.bytes for op in moved) == pytest.approx((norm + addition + relu) * a_pass, rel=1e-3)
    operands = 1 + 1 + 1  # the shortcut, its gradient, and where the ReLU let pass
    assert sum(op.fused_bytes for op in moved) == pytest.approx((norm + operands) * a_pass, rel=1e-3)
    assert sum(op.bytes for op in trace.operations if op.flops) == pytest.approx(3 * 2 * a_pass, rel=1e-3)


def test_a_step_has_three_passes_of_the_student_and_one_of_the_teacher() -> None:
    student: Architecture = {"arch": "resnet18", "classes": 10, "in_channels": 3, "channels": [8, 8, 16, 16]}
    teacher: Architecture = {**student, "channels": [16, 16, 32, 32]}
    stem = 32 * 32 * 8 * 3 * 7 * 7
    of_student, of_teacher = (network_cost(network, 64, 64).macs for network in (student, teacher))
    arithmetic = Ceilings("infinite bandwidth", flops=2.0, bandwidth=math.inf)
    alone, distilled = (limit(student, other, 64, 4, arithmetic) for other in (None, teacher))
    assert alone.convolutions == 3 * of_student - stem  # the images need no gradient
    assert distilled.convolutions == alone.convolutions + of_teacher


def test_a_line_of_the_documented_table_and_the_share_it_expects_are_what_the_program_computes() -> None:
    share, text = ffcv_share(), (ROOT / "docs/performance.md").read_text()
    assert f"{share.eager:.2f} of its eager floor and {share.convolutions:.2f} of its limit" in " ".join(text.split())
    line = Line.of(read_params(EXPERIMENT), Row.parse("train/resnet18-half"), H100, share.eager)
    assert f"| Resnet18(w.5) | {' | '.join(line.cells)} |\n" in text


@pytest.mark.slow
def test_the_documented_table_is_what_the_program_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main([str(EXPERIMENT)])
    assert capsys.readouterr().out in (ROOT / "docs/performance.md").read_text()


@pytest.mark.parametrize(
    ("experiment", "why"),
    [
        ("digits", "the hours are those of ImageNet; choose an experiment with dataset.source: imagenet"),
        ("imagenet", "recipe.precision is float32; the speeds are those of bfloat16"),
        ("none", "none.yaml"),
    ],
)
def test_other_experiments_have_no_such_speeds(experiment: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(ROOT / f"experiments/{experiment}.yaml")])
    said = capsys.readouterr().err
    assert f"experiments/{experiment}.yaml: " in said
    assert why in said
