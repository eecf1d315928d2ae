"""Every network of the paper, to the unit: parameters, shapes, attention points; and torchvision's own."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torchvision import models as torchvision_models
from torchvision.models import list_models

from benchmarks.separate_project import ROOT, write_params
from moonshine.checks.networks import check_networks
from moonshine.costs.counts import network_cost
from moonshine.models.architecture import architecture_of
from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.conv_spec import parse_conv
from moonshine.models.convolutions import cheap_convolution
from moonshine.models.features import FeatureTap
from moonshine.models.names import TORCHVISION
from moonshine.models.networks import build_network, initialise, place
from moonshine.params import Network, read_params
from tests.support.project import run, run_moonshine, toy_params

# Table 2 of arXiv 1711.02613: depth-width, convolution, parameters with batch norm's buffers for 10 classes.
# BG(2,M/16) is misprinted there as 234,704.
PAPER = """
40-2 S 2248954 | 16-2 S 693498 | 40-1 S 566650 | 16-1 S 175994 | 40-2 S-2x2 1012474
40-2 G(2) 1369530 | 40-2 G(4) 825210 | 40-2 G(8) 553050 | 40-2 G(16) 416970
40-2 G(N/16) 651834 | 40-2 G(N/8) 466362 | 40-2 G(N/4) 373626 | 40-2 G(N/2) 327258 | 40-2 G(N) 304074
40-2 B(2) 437242 | 40-2 B(4) 155002
40-2 BG(2,2) 292090 | 40-2 BG(2,4) 219514 | 40-2 BG(2,8) 183226 | 40-2 BG(2,16) 165082
40-2 BG(2,M/16) 243706 | 40-2 BG(2,M/8) 195322 | 40-2 BG(2,M/4) 171130 | 40-2 BG(2,M/2) 159034
40-2 BG(2,M) 152986 | 40-2 BG(4,M) 85450
"""
ROWS = [entry.split() for entry in re.split(r"[|\n]", PAPER) if entry.strip()]


def wide(size: str, conv: str, classes: int = 10) -> dict[str, object]:
    return architecture_of(Network(arch=f"wrn-{size}", conv=conv), classes, 3)


def parameters(architecture: dict[str, object]) -> int:
    network = build_network(architecture)
    return sum(t.numel() for name, t in network.state_dict().items() if not name.endswith("num_batches_tracked"))


def test_the_paper_has_26_networks() -> None:
    assert len(ROWS) == 26


@pytest.mark.parametrize(("size", "conv", "count"), ROWS)
def test_parameters_of_the_paper(size: str, conv: str, count: str) -> None:
    assert parameters(wide(size, conv)) == int(count)
    classifier = 90 * (64 * int(size[-1]) + 1)
    assert parameters(wide(size, conv, classes=100)) == int(count) + classifier


@pytest.mark.parametrize("conv", ["S", "S-2x2", "G(4)", "G(N)", "B(2)", "BG(2,M)"])
def test_shapes_of_wide_resnets_and_their_attention_layers(conv: str) -> None:
    architecture = wide("10-1", conv)
    network = initialise(architecture, 0)
    tap = FeatureTap(network, attention_layers_of(architecture), lambda features: features)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert [tuple(t.shape) for t in tap.take()] == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]


def test_bottlenecks_have_blocks_of_one_convolution_unless_said() -> None:
    def depth(architecture: dict[str, object]) -> int:
        return sum(
            isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3) for m in build_network(architecture).modules()
        )

    assert depth(wide("16-1", "B(2)")) == depth(wide("16-1", "BG(2,M)")) == 1 + 6
    assert depth(wide("16-1", "S")) == depth(wide("16-1", "G(N)")) == 1 + 12
    assert depth({**wide("16-1", "B(2)"), "block": "basic"}) == 1 + 12
    assert depth({**wide("16-1", "S"), "block": "single"}) == 1 + 6


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("conv", ["S", "S-2x2", "G(2)", "G(N)", "G(N/4)", "B(2)", "BG(2,4)", "BG(2,M)", "BG(2,M/2)"])
def test_a_cheap_convolution_has_the_shape_of_the_3x3(conv: str, stride: int) -> None:
    images = torch.randn(2, 8, 9, 12)
    expected = torch.nn.Conv2d(8, 16, 3, stride, 1)(images)
    assert cheap_convolution(parse_conv(conv), 8, 16, stride)(images).shape == expected.shape


@pytest.mark.parametrize(
    ("conv", "kernels", "groups"),
    [
        ("S-2x2", [(8, 16, 2)], [1]),
        ("G(2)", [(8, 8, 3), (8, 16, 1)], [2, 1]),
        ("G(N)", [(8, 8, 3), (8, 16, 1)], [8, 1]),
        ("G(N/4)", [(8, 8, 3), (8, 16, 1)], [2, 1]),
        ("B(4)", [(8, 4, 1), (4, 4, 3), (4, 16, 1)], [1, 1, 1]),
        ("BG(2,4)", [(8, 8, 1), (8, 8, 3), (8, 16, 1)], [1, 4, 1]),
        ("BG(2,M)", [(8, 8, 1), (8, 8, 3), (8, 16, 1)], [1, 8, 1]),
        ("BG(2,M/2)", [(8, 8, 1), (8, 8, 3), (8, 16, 1)], [1, 4, 1]),
    ],
)
def test_the_parts_of_a_cheap_convolution(conv: str, kernels: list[tuple[int, ...]], groups: list[int]) -> None:
    """From 8 to 16 channels with stride 2, which sits on the spatial convolution; no bias, no ReLU at the end."""
    layers = [m for m in cheap_convolution(parse_conv(conv), 8, 16, 2).modules() if not list(m.children())]
    convolutions = [m for m in layers if isinstance(m, torch.nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in convolutions] == kernels
    assert [m.groups for m in convolutions] == groups
    assert [m.stride[0] for m in convolutions] == [2 if kernel > 1 else 1 for _, _, kernel in kernels]
    assert all(m.bias is None for m in convolutions)
    kinds = "".join({"Conv2d": "c", "BatchNorm2d": "b", "ReLU": "r"}[type(m).__name__] for m in layers)
    assert kinds == "br".join("c" * len(convolutions))


def test_s_2x2_reaches_two_pixels_and_keeps_the_size() -> None:
    layer = cheap_convolution(parse_conv("S-2x2"), 1, 1, 1)
    assert isinstance(layer, torch.nn.Conv2d)
    assert (layer.dilation, layer.padding) == ((2, 2), (1, 1))


# The lab note's networks: learnable, with batch norm's running statistics, MACs at 224 pixels (BlockSwap's counts), and
# activations, of which timm publishes ResNet-34's (3.74M) and ResNet-18's (2.48M).
IMAGENET = {
    "Resnet34": (Network(arch="resnet34"), 21_797_672, 21_814_696, 3.664e9, 3_739_112),
    "Resnet18": (Network(arch="resnet18"), 11_689_512, 11_699_112, 1.814e9, 2_484_712),
    "Resnet34 Sep": (Network(arch="resnet34", conv="G(N)"), 3_132_520, 3_163_752, 0.554e9, 6_410_984),
    "Resnet34-G(4)": (Network(arch="resnet34", conv="G(4)"), 8_146_600, 8_177_832, 1.389e9, 6_410_984),
    "Resnet18(w.5)": (Network(arch="resnet18", channels=[64, 64, 128, 256]), 3_191_976, 3_197_096, 0.905e9, 2_045_672),
    "Resnet18 Sep": (Network(arch="resnet18", conv="G(N)"), 1_961_960, 1_978_344, 0.337e9, 3_902_184),
    "MobileNetV2 (timm)": (Network(arch="mobilenet_v2"), 3_504_872, 3_538_984, 0.301e9, 6_679_112),
}


@pytest.mark.parametrize(
    ("network", "learnable", "with_statistics", "macs", "activations"), IMAGENET.values(), ids=IMAGENET
)
def test_cost_of_the_imagenet_networks(
    network: Network, learnable: int, with_statistics: int, macs: float, activations: int
) -> None:
    cost = network_cost(architecture_of(network, 1000, 3), 224, 224)
    assert (cost.trainable, cost.parameters, cost.activations) == (learnable, with_statistics, activations)
    assert cost.macs == pytest.approx(macs, rel=0.01)


def test_the_known_architectures_are_torchvisions() -> None:
    assert set(TORCHVISION) == set(list_models(module=torchvision_models))


NAMED_BY_THE_DOCS = ("resnet50", "resnext50_32x4d", "wide_resnet50_2", "vgg11_bn", "mobilenet_v2")
OTHER_FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t"),
    *("regnet_x_400mf", "vgg11", "vit_b_16"),
)


@pytest.mark.parametrize(
    "arch", [*NAMED_BY_THE_DOCS, *(pytest.param(a, marks=pytest.mark.slow) for a in OTHER_FAMILIES)]
)
def test_any_torchvision_network_is_substituted_counted_and_read(arch: str) -> None:
    """Without weights: built, run, its attention points found."""
    side = 299 if arch == "inception_v3" else 224
    architecture = architecture_of(Network(arch=arch, conv="G(N)"), 10, 1)
    network = build_network(architecture).eval()
    tap = FeatureTap(network, attention_layers_of(architecture), lambda features: features)
    with torch.inference_mode():
        assert network(torch.empty(2, 1, side, side, device="meta")).shape == (2, 10)
    assert all(features.dim() == 4 for features in tap.take())
    assert (
        0 < network_cost(architecture, side, side).macs <= network_cost({**architecture, "conv": "S"}, side, side).macs
    )


@pytest.mark.parametrize("arch", ["vgg11", "vgg16_bn", "vgg19_bn"])
def test_vggs_points_are_the_relus_before_its_poolings(arch: str) -> None:
    architecture = architecture_of(Network(arch=arch), 10, 3)
    layers = list(build_network(architecture).get_submodule("features").children())
    before_poolings = [i - 1 for i, layer in enumerate(layers) if isinstance(layer, torch.nn.MaxPool2d)]
    assert attention_layers_of(architecture) == tuple(f"features.{i}" for i in before_poolings)
    assert all(isinstance(layers[i], torch.nn.ReLU) for i in before_poolings)


@pytest.mark.parametrize(
    "arch", [arch if arch == "vgg11_bn" else pytest.param(arch, marks=pytest.mark.slow) for arch in NAMED_BY_THE_DOCS]
)
def test_torchvision_networks_train(arch: str) -> None:
    network = initialise(architecture_of(Network(arch=arch, conv="G(N)"), 5, 3), 0)
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_replaced_convolution_leaves_its_bias_to_the_last_of_its_substitute() -> None:
    network = build_network(architecture_of(Network(arch="vgg11", conv="G(N)"), 10, 3))
    substitute = network.get_submodule("features.3")
    assert substitute.spatial.bias is None
    assert substitute.pointwise.bias.shape == (128,)


def test_initial_weights_are_a_function_of_architecture_and_seed() -> None:
    architecture = architecture_of(Network(arch="resnet18", conv="B(2)", channels=[4, 4, 8, 8]), 10, 1)
    state_before = torch.get_rng_state()
    first, again, other = (initialise(architecture, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state_before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])
    assert not torch.equal(first["layer1.0.conv1.spatial.weight"], other["layer1.0.conv1.spatial.weight"])


def test_he_normal_weights_of_substitutes() -> None:
    """Fan out: the standard deviation is sqrt(2 / (outputs * k * k))."""
    layer = initialise(architecture_of(Network(arch="wrn-16-4", conv="G(2)"), 10, 3), 0).get_submodule("group3.1.conv2")
    assert layer.spatial.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert layer.pointwise.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)


@pytest.mark.slow
def test_describe_prints_the_papers_26_counts() -> None:
    """In the order of the paper's table, for the networks of experiments/cifar10.yaml."""
    printed = run_moonshine("describe", "--params", "experiments/cifar10.yaml", cwd=ROOT).stdout
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "| wrn-" in line]
    assert [(line[1], line[2], line[3].replace(",", "")) for line in lines] == [
        (f"wrn-{size}", conv, count) for size, conv, count in ROWS
    ]


@pytest.mark.slow
def test_params_are_named_before_or_after_the_command() -> None:
    option = ("--params", "experiments/digits.yaml")
    before, after = (run_moonshine(*order, cwd=ROOT).stdout for order in ((*option, "describe"), ("describe", *option)))
    assert "| resnet34-sep" in before
    assert before == after


def test_describe_lists_what_is_substituted_and_what_is_not_and_why() -> None:
    printed = run_moonshine("describe", "--arch", "resnet18", "--conv", "G(N)", cwd=ROOT).stdout
    cells = [re.sub(r" +", " ", line).strip("| ") for line in printed.splitlines()]
    assert "Substituted: 16 of 20 convolutions." in cells
    before, after = 64 * 128 * 9, 64 * 9 + 4 * 64 + 64 * 128
    counts = [before, after, before * 784, 6_874_112, 128 * 784, (64 + 128) * 784]
    assert f"layer2.0.conv1 | 3x3, 64 -> 128, stride 2 | {' | '.join(f'{count:,}' for count in counts)}" in cells
    assert "Not substituted: 4." in cells
    assert "conv1 | 7x7, 3 -> 64, stride 2 | stem" in cells
    assert "layer2.0.downsample.0 | 1x1, 64 -> 128, stride 2 | 1x1 kernel" in cells
    totals = {
        path: network_cost(architecture_of(Network(arch="resnet18", conv=path), 1000, 3), 224, 224)
        for path in ("S", "G(N)")
    }
    for conv, cost in totals.items():
        counts = [cost.parameters, cost.trainable, cost.macs, cost.activations]
        assert f"resnet18 {conv} | {' | '.join(f'{count:,}' for count in counts)}" in cells


def test_describe_counts_networks_with_nothing_to_substitute() -> None:
    printed = run_moonshine("describe", "--arch", "resnext50_32x4d", "--conv", "G(N)", cwd=ROOT).stdout
    assert "Substituted: 0 of 53 convolutions." in printed
    assert re.search(r"layer1\.0\.conv2 +\| 3x3, 128 -> 128 +\| 32 groups already", printed)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--arch", "resnet43"), 'error: arch: unknown architecture "resnet43" (did you mean "resnet34"?)\n'),
        (("--arch", "resnet18", "--conv", "g(n)"), 'error: conv: unknown convolution "g(n)" (did you mean "G(N)"?)\n'),
        (("resnet43",), 'error: unknown network "resnet43" (did you mean "resnet34"?)\n'),
    ],
)
def test_describe_refuses_unknown_names(arguments: tuple[str, ...], line: str) -> None:
    result = run_moonshine("describe", *arguments, cwd=ROOT, check=False)
    assert (result.returncode, result.stderr) == (2, line)


def test_the_example_of_named_attention_layers_fits(tmp_path: Path) -> None:
    """The networks of docs/networks.md, for attention transfer from one to the other."""
    text = (ROOT / "docs/networks.md").read_text()
    params = toy_params()
    example = re.search(r"^## Attention points\n.*?```yaml\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    params["networks"] = yaml.safe_load(example[1])["networks"]
    params["dataset"].update(size=64)
    params["methods"]["at"]["groups"] = [1, 2, 3, 4, 5]
    write_params(tmp_path, params)
    check_networks(read_params(tmp_path / "params.yaml"))


STEPS = """
import torch
from moonshine.models.networks import initialise, place
architecture = dict(arch="resnet18", stem="3x3", classes=3, in_channels=3, channels=[4, 8, 12, 16])
network = place(initialise(architecture, 0), torch.device("cpu")).train()
for _ in range(10):
    network(torch.randn(16, 3, 64, 64).to(memory_format=torch.channels_last)).sum().backward()
"""


@pytest.mark.parametrize("instructions", ["DEFAULT", pytest.param("AVX2", marks=pytest.mark.slow)])
def test_narrow_shortcuts_are_trained_without_writing_past_buffers(instructions: str, tmp_path: Path) -> None:
    """oneDNN does in those of plain layers, and the process dies at once or a little later."""
    run(sys.executable, "-c", STEPS, cwd=tmp_path, ONEDNN_MAX_CPU_ISA=instructions)


@pytest.mark.parametrize("side", [12, 7])
@pytest.mark.parametrize("channels", [8, 12, 15])
def test_a_narrow_shortcut_is_the_plain_layer_to_the_bit(channels: int, side: int) -> None:
    def results(placed: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        layer: nn.Module = nn.Conv2d(channels, 32, 1, stride=2)
        layer = place(layer, torch.device("cpu")) if placed else layer.to(memory_format=torch.channels_last)
        images = torch.randn(64, channels, side, side).to(memory_format=torch.channels_last).requires_grad_()
        output = layer(images)
        output.backward(torch.randn_like(output))
        assert images.grad is not None
        return [output, images.grad, *(parameter.grad for parameter in layer.parameters())]

    plain, placed = results(False), results(True)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(placed, plain, strict=True))
