"""Networks drawn within a budget, and what the table says that they cost."""

from collections import Counter

import pytest
import torch
from torch import nn

from moonshine.costs.counts import network_cost
from moonshine.errors import ParamsError
from moonshine.models.networks import build_network
from moonshine.project.records import Architecture
from moonshine.search import sampling
from moonshine.search.network import cost_table, networks_of_pool
from moonshine.search.sampling import COSTS, Budget, CostTable, sample
from moonshine.search.space import POOL

WIDE: Architecture = {"arch": "wrn-10-2", "classes": 10, "in_channels": 3}
TORCHVISION: Architecture = {
    "arch": "resnet18",
    "channels": [16, 16, 32, 32],
    "stem": "3x3",
    "classes": 10,
    "in_channels": 1,
}


def table_of(architecture: Architecture, pool: list[str], size: int) -> CostTable:
    return cost_table(networks_of_pool(architecture, pool, "search.x"), architecture["in_channels"], size)


def activations(architecture: Architecture, size: int) -> int:
    """Elements of the outputs of all convolutions and of the classifier, for one image."""
    network, elements = build_network(architecture), list[int]()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda layer, inputs, output: elements.append(output[0].numel()))
    network(torch.empty(2, architecture["in_channels"], size, size, device="meta"))
    return sum(elements)


@pytest.mark.parametrize(("architecture", "blocks"), [(WIDE, 3), (TORCHVISION, 8)], ids=["wide", "torchvision"])
def test_the_table_has_the_costs_of_built_networks(architecture: Architecture, blocks: int) -> None:
    pool = ["S", "G(4)", "G(N/8)", "B(2)", "BG(2,4)", "BG(2,M/8)"]
    table = table_of(architecture, pool, 12)
    choices = torch.randint(len(pool), (3, blocks), generator=torch.Generator().manual_seed(0))
    for chosen in choices.tolist():
        built: Architecture = {**architecture, "convs": table.convs(chosen)}
        counted = network_cost(built, 12, 12)
        assert {cost: table.totals(cost, torch.tensor([chosen])).item() for cost in COSTS} == {
            "parameters": counted.trainable,
            "macs": counted.macs,
            "activations": activations(built, 12),
        }


def test_the_default_pool_is_that_of_the_paper() -> None:
    groups, widths = ("2", "4", "8", "16"), ("/16", "/8", "/4", "/2", "")
    of_groups = [*groups, *(f"N{width}" for width in widths)]
    expected = {"S", "B(2)", "B(4)", *(f"G({each})" for each in of_groups)}
    expected |= {f"BG(2,{each.replace('N', 'M')})" for each in of_groups}
    assert set(POOL) == expected
    assert len(POOL) == 21


def made_table(blocks: int = 3) -> CostTable:
    """Convolution i costs i parameters in each block; all else 100."""
    of_blocks = torch.arange(4).expand(blocks, 4)
    return CostTable(("a", "b", "c", "d"), dict.fromkeys(COSTS, 100), dict.fromkeys(COSTS, of_blocks))


def no_poll() -> None:
    pass


def test_each_block_draws_from_the_pool_uniformly() -> None:
    """All 64 networks are within this budget, so nothing is left out."""
    choices, draws = sample(made_table(), Budget("macs", 104, 0.2), 6400, 0, "search.x", no_poll)
    assert draws == len(choices) == 6400
    counts = Counter(map(tuple, choices.tolist()))
    assert len(counts) == 64
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 103, "chi squared of 63 degrees, p = 0.001"


def test_only_networks_within_the_budget_are_kept_and_all_of_those() -> None:
    """Within the tolerance means by less than it: 5 of 105 is not within 5 of 100."""
    table, budget = made_table(), Budget("parameters", 105, 2 / 105)
    choices, draws = sample(table, budget, 500, 1, "search.x", no_poll)
    assert set(table.totals("parameters", choices).tolist()) == {104, 105, 106}
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    within = sum(104 <= total <= 106 for total in table.totals("parameters", every).tolist())
    assert len(set(map(tuple, choices.tolist()))) == within
    assert 500 / draws == pytest.approx(within / 64, rel=0.2)


def test_a_sample_depends_on_the_seed_and_begins_as_a_larger_one() -> None:
    table, budget = made_table(), Budget("parameters", 105, 0.02)
    few, draws = sample(table, budget, 10, 1, "search.x", no_poll)
    many, more_draws = sample(table, budget, 40_000, 1, "search.x", no_poll)
    assert torch.equal(many[:10], few)
    assert draws < sampling.CHUNK < more_draws
    assert not torch.equal(sample(table, budget, 10, 2, "search.x", no_poll)[0], few)


def test_a_budget_that_nothing_meets_is_refused_before_any_draw() -> None:
    with pytest.raises(
        ParamsError,
        match=r"^search\.x\.macs: 200 within 2\.5 %, but with this pool networks have from 100 to 109; choose an "
        r"amount between these$",
    ):
        sample(made_table(), Budget("macs", 200, 0.025), 1, 0, "search.x", lambda: pytest.fail("it drew"))


def test_a_budget_that_is_never_met_ends_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the least and the most, but costs are even there."""
    monkeypatch.setattr(sampling, "MOST_MISSES", 2 * sampling.CHUNK)
    table = CostTable(("a", "b"), {"macs": 0}, {"parameters": torch.zeros(2, 2), "macs": torch.tensor([[2, 4]] * 2)})
    with pytest.raises(
        ParamsError, match=r"^search\.x\.macs: 5 within 1 %: 0 of 65,536 networks drawn .*, and none of"
    ):
        sample(table, Budget("macs", 5, 0.01), 3, 0, "search.x", no_poll)


def test_convolutions_that_cannot_be_built_are_named() -> None:
    with pytest.raises(ParamsError) as caught:
        networks_of_pool(TORCHVISION, ["S", "G(3)", "BG(2,16)"], "search.x")
    assert str(caught.value).splitlines() == [
        "search.x.pool: layer layer1.0.conv1: G(3): 16 channels cannot be split into 3 groups; leave it out",
        "search.x.pool: layer layer1.0.conv1: BG(2,16): 8 channels cannot be split into 16 groups; leave it out",
    ]
