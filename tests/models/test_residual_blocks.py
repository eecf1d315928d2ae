"""Networks whose residual blocks have a convolution of their own each, as BlockSwap's."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, relu
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock

import moonshine
from benchmarks.separate_project import ROOT, write_params
from moonshine.costs.counts import cost, network_cost
from moonshine.models.architecture import architecture_of
from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.features import FeatureTap
from moonshine.models.names import TORCHVISION, residual_block_count
from moonshine.models.networks import build_network, initialise
from moonshine.models.norms import zero_residual_norms
from moonshine.models.residual_blocks import SingleBlock, residual_blocks, substitute_blocks
from moonshine.models.weight_file import same_tensors
from moonshine.models.wide_resnet import WideBlock
from moonshine.params import Network, read_params
from moonshine.project.records import Architecture
from tests.support.project import run_moonshine, toy_params

THIN: dict[str, Any] = {"arch": "resnet18", "channels": [4, 4, 8, 8], "stem": "3x3"}
MIXED = ["S", "B(2)", "G(2)", "BG(2,M)", "BG(2,2)", "S-2x2", "B(4)", "G(N/2)"]


def architecture(**settings: Any) -> Architecture:
    return architecture_of(Network(**settings), 10, 3)


def kernels(block: nn.Module) -> list[int]:
    return [layer.kernel_size[0] for layer in block.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize("arch", ["wrn-10-1", "wrn-40-2", "resnet18", "resnet34", "resnet50", "vgg11", "mobilenet_v2"])
def test_blocks_are_counted_without_building_the_network(arch: str) -> None:
    assert residual_block_count(arch) == (len(residual_blocks(build_network(architecture(arch=arch)))) or None)


def test_of_torchvisions_networks_two_have_blocks_of_two_convolutions() -> None:
    assert [arch for arch in TORCHVISION if residual_block_count(arch)] == ["resnet18", "resnet34"]


@pytest.mark.parametrize(
    ("settings", "conv"),
    [
        *((THIN, conv) for conv in ("S", "S-2x2", "G(2)")),
        *(({"arch": "wrn-16-1"}, conv) for conv in ("G(N/8)", "B(2)", "BG(2,M)")),
    ],
)
def test_a_list_of_one_convolution_is_that_convolution_everywhere(settings: dict[str, Any], conv: str) -> None:
    """Except for bottlenecks in torchvision's ResNets, where `conv` keeps blocks of two."""
    one = initialise(architecture(**settings, conv=conv), 0)
    count = residual_block_count(settings["arch"]) or 0
    many = initialise(architecture(**settings, convs=[conv] * count), 1)
    shapes = [{name: tensor.shape for name, tensor in network.state_dict().items()} for network in (one, many)]
    assert list(shapes[0].items()) == list(shapes[1].items())
    many.load_state_dict(one.state_dict())
    images = torch.randn(4, 3, 16, 16)
    outputs = [network(images) for network in (one, many)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for ours, theirs in zip(one.parameters(), many.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


def test_each_block_has_the_convolutions_of_its_place() -> None:
    """S and G stand twice in their blocks, B and BG once; the stride and the shortcut stay."""
    expected = [[3, 3], [1, 3, 1], [3, 1, 3, 1, 1], [1, 3, 1], [1, 3, 1, 1], [2, 2], [1, 3, 1, 1], [3, 1, 3, 1]]
    network = build_network(architecture(**THIN, convs=MIXED))
    blocks = residual_blocks(network)
    assert [kernels(block) for block in blocks.values()] == expected
    assert list(blocks) == [f"layer{layer}.{block}" for layer in (1, 2, 3, 4) for block in (0, 1)]
    wide = build_network(architecture(arch="wrn-16-1", convs=["B(2)", "S", "BG(2,4)", "G(4)", "G(N)", "B(4)"]))
    blocks = residual_blocks(wide)
    assert [kernels(block) for block in blocks.values()] == [
        *([1, 3, 1], [3, 3], [1, 3, 1, 1], [3, 1, 3, 1], [3, 1, 3, 1, 1], [1, 3, 1])
    ]
    for block in (network.get_submodule("layer3.0.conv1.spatial"), wide.get_submodule("group2.0.conv1.spatial")):
        assert (block.groups, block.stride) == ({4: 2, 16: 4}[block.in_channels], (2, 2))


def test_attention_is_read_at_the_ends_of_the_layers() -> None:
    described = architecture(**THIN, convs=MIXED)
    network = initialise(described, 0)
    tap = FeatureTap(network, attention_layers_of(described), lambda features: features)
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 10)
    assert [tuple(t.shape) for t in tap.take()] == [(2, 4, 16, 16), (2, 4, 8, 8), (2, 8, 4, 4), (2, 8, 2, 2)]


@pytest.mark.parametrize("path", ["layer1.0", "layer2.0"])
def test_the_post_activation_block_of_one_convolution_by_its_definition(path: str) -> None:
    """Convolution, batch norm, plus the shortcut, ReLU; its gradients as well."""
    described = architecture(**THIN, convs=["B(2)", "S", "BG(2,2)", *["S"] * 5])
    block = initialise(described, 0).double().get_submodule(path)
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight)
            nn.init.normal_(layer.bias)
    stride, groups = (2, 2) if path == "layer2.0" else (1, 1)
    tensors = dict(block.named_parameters())

    def norm(name: str, features: torch.Tensor) -> torch.Tensor:
        return batch_norm(features, None, None, tensors[f"{name}.weight"], tensors[f"{name}.bias"], training=True)

    def reference(features: torch.Tensor) -> torch.Tensor:
        reduced = relu(norm("conv1.reduce_bn", conv2d(features, tensors["conv1.reduce.weight"])))
        spatial = conv2d(reduced, tensors["conv1.spatial.weight"], stride=stride, padding=1, groups=groups)
        out = norm("bn2", conv2d(relu(norm("conv1.bn", spatial)), tensors["conv1.pointwise.weight"]))
        if path == "layer2.0":
            features = norm("downsample.1", conv2d(features, tensors["downsample.0.weight"], stride=2))
        return relu(out + features)

    images = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    weight = torch.randn_like(reference(images))
    found = []
    for function in (block, reference):
        inputs = images.clone().requires_grad_()
        output = function(inputs)
        found.append((output, *torch.autograd.grad((output * weight).sum(), [inputs, *tensors.values()])))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_block_keeps_the_weights_of_what_it_keeps() -> None:
    """Of a teacher's block: the shortcut and the batch norm before the addition, which is not the first one."""
    teacher = build_network(architecture(**THIN)).state_dict()
    taken = same_tensors(teacher, architecture(**THIN, convs=["S", "S", "B(2)", *["S"] * 5]))
    kept = {name for name in taken if name.startswith("layer2.0.") and not name.endswith("num_batches_tracked")}
    parts = ("weight", "bias", "running_mean", "running_var")
    assert kept == {
        "layer2.0.downsample.0.weight",
        *(f"layer2.0.{norm}.{part}" for norm in ("bn2", "downsample.1") for part in parts),
    }
    assert {name for name in teacher if not name.startswith("layer2.0.")} <= taken.keys()


def test_blocks_begin_as_the_identity_if_asked() -> None:
    network = initialise(architecture(**THIN, convs=MIXED), 0).eval()
    zero_residual_norms(network)
    features = torch.rand(1, 4, 8, 8)
    assert isinstance(network.get_submodule("layer1.1"), SingleBlock)
    assert torch.equal(network.get_submodule("layer1")(features), features)


def test_initial_weights_are_a_function_of_architecture_and_seed() -> None:
    first, again, other = (initialise(architecture(**THIN, convs=MIXED), seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["layer1.1.conv1.spatial.weight"], other["layer1.1.conv1.spatial.weight"])


def test_cheapen_takes_a_list() -> None:
    teacher = resnet18(num_classes=10).double().eval()
    for layer in teacher.modules():
        if isinstance(layer, nn.BatchNorm2d):  # so that no two are equal
            nn.init.uniform_(layer.weight)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = moonshine.cheapen(teacher, MIXED)
    assert teacher.state_dict().keys() == before.keys()
    assert [type(block) for block in residual_blocks(teacher).values()] == [BasicBlock] * 8
    assert sum(isinstance(block, SingleBlock) for block in student.modules()) == 4
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float64}
    assert not any(module.training for module in student.modules())
    kept = {name for name in before.keys() & student.state_dict().keys() if not name.startswith("layer3.1.conv")}
    assert {"layer1.1.bn2.weight", "layer1.0.conv2.weight", "fc.weight"} <= kept
    assert all(torch.equal(before[name], student.state_dict()[name]) for name in kept)
    described = architecture(arch="resnet18", convs=MIXED)
    assert cost(student, (3, 64, 64)) == cost(build_network(described), (3, 64, 64))


@pytest.mark.parametrize(
    ("network", "convs", "message"),
    [
        (resnet18, ["G(N)"] * 7, r"7 convolutions for 8 residual blocks"),
        (resnet18, [*["G(N)"] * 7, "G[n]"], r'convs\.7: unknown convolution "G\[n\]" \(did you mean "G\(N\)"\?\)'),
        (resnet18, [*["G(N)"] * 7, "G(5)"], r"layer layer4\.1\.conv1: G\(5\): 512 channels"),
        (lambda: nn.Linear(2, 2), ["G(N)"], r"1 convolutions for 0 residual blocks"),
        (lambda: moonshine.cheapen(resnet18(), MIXED), MIXED, r"block layer1\.1: does not have two plain 3x3"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(network: Any, convs: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moonshine.cheapen(network(), convs)


def test_blocks_of_one_convolution_take_no_list() -> None:
    with pytest.raises(ValueError, match=r"block group1\.0: does not have two plain 3x3 convolutions"):
        substitute_blocks(build_network(architecture(arch="wrn-10-1", block="single")), ["S"] * 3)
    assert isinstance(residual_blocks(build_network(architecture(arch="wrn-10-1")))["group1.0"], WideBlock)


# Learnable parameters of the networks of arXiv 1906.04113, and MACs by PyTorch's counter.
RELEASED = [
    ("cifar10-blockswap", "blockswap-811k", 811_370, 131_876_096),
    ("cifar10-blockswap", "blockswap-556k", 555_962, 88_876_288),
    ("cifar10-blockswap", "blockswap-404k", 404_250, 92_161_280),
    ("cifar10-blockswap", "blockswap-289k", 289_226, 65_389_824),
    ("cifar10-blockswap", "blockswap-217k", 217_050, 38_380_800),
    ("cifar10-blockswap", "blockswap-162k", 162_202, 33_453_312),
    ("imagenet", "resnet34-blockswap-3m", 3_083_176, 806_965_760),
    ("imagenet", "resnet34-blockswap-8m", 8_193_576, 1_200_671_744),
]


@pytest.mark.parametrize(("experiment", "network", "learnable", "macs"), RELEASED)
def test_the_released_lists_have_the_parameters_of_the_paper(
    experiment: str, network: str, learnable: int, macs: int
) -> None:
    params = read_params(ROOT / f"experiments/{experiment}.yaml")
    found = network_cost(params.architecture(network), params.dataset.size, params.dataset.size)
    assert (found.trainable, found.macs) == (learnable, macs)


def test_published_values_are_not_next_to_another_network() -> None:
    """The released list of 8.2M parameters is not the paper's network of 8.1M."""
    for experiment in ("imagenet", "imagenet-bf16"):
        tables = read_params(ROOT / f"experiments/{experiment}.yaml").tables
        published = {row for table in tables for column in table.published for row in column.values}
        assert "distil/at/resnet34-blockswap-3m" in published
        assert "distil/at/resnet34-blockswap-8m" not in published


def test_describe_lists_the_blocks_and_what_becomes_of_each_convolution(tmp_path: Path) -> None:
    params = toy_params()
    params["networks"]["student"] = {**THIN, "convs": MIXED}
    write_params(tmp_path, params)
    printed = run_moonshine("describe", cwd=tmp_path).stdout
    cells = [re.sub(r" +", " ", line).strip("| ") for line in printed.splitlines()]
    counts = network_cost(architecture_of(Network(**params["networks"]["student"]), 10, 1), 12, 12)
    costs = " | ".join(f"{cost:,}" for cost in (counts.parameters, counts.trainable, counts.macs, counts.activations))
    assert f"student | resnet18 | per block | {costs}" in cells
    assert "student | layer2 | G(2) BG(2,M)" in cells
    printed = run_moonshine("describe", "student", cwd=tmp_path).stdout
    cells = [re.sub(r" +", " ", line).strip("| ") for line in printed.splitlines()]
    assert f"resnet18 per block | {costs}" in cells
    assert "layer3 | BG(2,2) S-2x2" in cells
    assert "Substituted: 14 of 20 convolutions." in cells
    assert "layer2.1.conv1 | 3x3, 4 -> 4 | 144 | 50 | 5,184 | 1,224 | 144 | 288" in cells
    assert "layer2.1.conv2 | 3x3, 4 -> 4 | 144 | removed | 5,184 | removed | 144 | removed" in cells
    assert "layer1.0.conv1 | 3x3, 4 -> 4 | S" in cells
