"""The Fisher potential by its definition, and the network that becomes each candidate."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from moonshine.data.labels import MixedLabels
from moonshine.models.networks import initialise, place
from moonshine.models.norms import zero_residual_norms
from moonshine.models.residual_blocks import residual_blocks
from moonshine.project.records import Architecture
from moonshine.search.fisher import branch_end, fisher_potential
from moonshine.search.network import CandidateNetwork, networks_of_pool

WIDE: Architecture = {"arch": "wrn-10-1", "classes": 5, "in_channels": 1, "convs": ["G(N)", "B(2)", "S"]}
TORCHVISION: Architecture = {
    "arch": "resnet18",
    "stem": "3x3",
    "channels": [4, 4, 8, 8],
    "classes": 5,
    "in_channels": 1,
    "convs": ["S", "G(N)", "B(2)", "BG(2,M)", "G(2)", "S", "B(2)", "G(N)"],
}
BOTH = pytest.mark.parametrize("architecture", [WIDE, TORCHVISION], ids=["pre-activation", "post-activation"])


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    images = torch.randn(6, 1, 12, 12, generator=random, dtype=torch.float64)
    return images, torch.randint(5, (6,), generator=random)


def by_masks(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Equation 2 from other derivatives: of the loss by a factor on each channel of each image, sum_ij a g at 1."""
    masks, hooks = [], []

    def mask(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        masks.append(torch.ones(output.shape[:2], dtype=torch.float64, requires_grad=True))
        return output * masks[-1][:, :, None, None]

    for block in residual_blocks(network).values():
        hooks.append(branch_end(block).register_forward_hook(mask))
    loss = cross_entropy(network(images).float(), labels)  # in float32, as in trainings
    for hook in hooks:
        hook.remove()
    products = [each.numpy() for each in torch.autograd.grad(loss, masks)]
    return sum(float(np.sum(np.sum(of_images**2, axis=0) / (2 * len(images)))) for of_images in products)


@BOTH
def test_the_potential_is_that_of_the_definition(
    architecture: Architecture, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    network = initialise(architecture, 3).double().train()
    potential = fisher_potential(network, *batch)
    assert potential > 0
    assert potential == pytest.approx(by_masks(network, *batch), rel=1e-9, abs=0)


@BOTH
def test_the_probes_are_where_the_shortcut_is_added(
    architecture: Architecture, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """What a block gives, less its shortcut, is what its branch ends with: relu(branch + shortcut) or their sum."""
    network, seen = initialise(architecture, 3).double().train(), dict[tuple[nn.Module, str], torch.Tensor]()

    def note(part: str, block: nn.Module, module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen[block, part] = output.clone()

    for block in residual_blocks(network).values():
        shortcut = block.shortcut if architecture is WIDE else block.downsample
        parts = {"output": block, "branch": branch_end(block), **({"shortcut": shortcut} if shortcut else {})}
        block.register_forward_pre_hook(lambda module, inputs: seen.update({(module, "input"): inputs[0].clone()}))
        for part, module in parts.items():
            module.register_forward_hook(partial(note, part, block))
    network(batch[0])
    for block in residual_blocks(network).values():
        added = seen[block, "branch"] + seen.get((block, "shortcut"), seen[block, "input"])
        assert torch.equal(seen[block, "output"], added if architecture is WIDE else added.relu())


def test_nothing_is_left_in_the_network(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    network = initialise(TORCHVISION, 3).double().train()
    weights = {name: value.clone() for name, value in network.named_parameters()}
    fisher_potential(network, *batch)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_branch_that_is_zero_has_no_potential(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Why a search never begins with `zero_init_residual`."""
    network = initialise(TORCHVISION, 3).double().train()
    zero_residual_norms(network)
    assert fisher_potential(network, *batch) == 0


def test_images_may_be_mixed(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    network = initialise(WIDE, 3).double().train()
    images, labels = batch
    same = fisher_potential(network, images, MixedLabels(labels, labels, 0.3))
    assert same == pytest.approx(fisher_potential(network, images, labels), rel=1e-6)
    assert fisher_potential(network, images, MixedLabels(labels, labels.roll(1), 0.3)) != pytest.approx(same)


POOL = ["S", "G(N)", "B(2)", "BG(2,2)"]


@BOTH
def test_a_candidate_is_the_network_of_its_list_whatever_came_before(architecture: Architecture) -> None:
    blocks = len(architecture["convs"])
    standard: Architecture = {**architecture, "convs": ["S"] * blocks}
    candidates = CandidateNetwork(networks_of_pool(standard, POOL, "search.x"), torch.device("cpu"))
    images, labels = torch.randn(8, 1, 12, 12), torch.arange(8) % 5
    choices = [[(block + candidate) % len(POOL) for block in range(blocks)] for candidate in range(4)]
    potentials = [
        fisher_potential(candidates.become(chosen, 0, candidate), images, labels)
        for candidate, chosen in enumerate(choices)
    ]
    for candidate in (2, 0, 3, 1):
        network = candidates.become(choices[candidate], 0, candidate)
        assert fisher_potential(network, images, labels) == potentials[candidate]
        convs = [POOL[choice] for choice in choices[candidate]]
        built = place(initialise({**architecture, "convs": convs}, 0), torch.device("cpu")).train()
        built.load_state_dict(network.state_dict())
        assert fisher_potential(built, images, labels) == potentials[candidate]
    assert len(set(potentials)) == 4


def test_weights_are_drawn_as_a_training_draws_them() -> None:
    """By seed and candidate: standard deviations of convolutions and ranges of the classifier as of `initialise`."""
    architecture: Architecture = {"arch": "wrn-10-4", "classes": 5, "in_channels": 3}
    candidates = CandidateNetwork(networks_of_pool(architecture, ["S", "G(N)"], "search.x"), torch.device("cpu"))
    network, usual = candidates.become([0, 0, 0], 5, 7), initialise(architecture, 1)
    for (path, layer), other in zip(network.named_modules(), usual.modules()):
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.std().item() == pytest.approx(other.weight.std().item(), rel=0.15), path
            assert abs(layer.weight.mean().item()) < 4 * layer.weight.std().item() / math.sqrt(layer.weight.numel())
    bound = 1 / math.sqrt(network.fc.in_features)
    assert 0.9 * bound < network.fc.weight.abs().max().item() <= bound
    assert torch.equal(network.fc.bias, usual.fc.bias)
    first = network.conv1.weight.clone()
    assert not torch.equal(candidates.become([0, 0, 0], 5, 8).conv1.weight, first)
    assert not torch.equal(candidates.become([0, 0, 0], 6, 7).conv1.weight, first)
    assert torch.equal(candidates.become([1, 1, 1], 5, 7).conv1.weight, first)
