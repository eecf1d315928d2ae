"""The networks that a search chooses from, checked before any work."""

import json

from torch import nn

from moonshine.params import Params
from moonshine.search.latencies import with_latencies
from moonshine.search.network import cost_table, networks_of_pool
from moonshine.search.sampling import LATENCY, NANOSECONDS, Budget, CostTable, require_attainable

_GROUPS = ("2", "4", "8", "16")
_WIDTHS = ("/16", "/8", "/4", "/2", "")
POOL = (
    "S",
    *("B(2)", "B(4)"),
    *(f"G({groups})" for groups in (*_GROUPS, *(f"N{width}" for width in _WIDTHS))),
    *(f"BG(2,{groups})" for groups in (*_GROUPS, *(f"M{width}" for width in _WIDTHS))),
)
"""The convolutions of the BlockSwap paper (Turner et al., ICLR 2020, arXiv 1906.04113)."""


def pool_of(params: Params, name: str) -> tuple[str, ...]:
    return tuple(params.search[name].pool or POOL)


def budget_of(params: Params, name: str) -> Budget:
    settings = params.search[name]
    cost, amount = settings.budget
    return Budget(cost, round(amount * NANOSECONDS) if cost == LATENCY else int(amount), settings.tolerance)


def search_space(params: Params, name: str) -> tuple[dict[str, nn.Module], CostTable]:
    """Convolution of the pool -> the network that has it in each block, and what such networks cost.

    Raises ParamsError (exit code 2) for a convolution that cannot be built and for a budget that cannot be met, and
    DataError (3) if the budget is latency and the machine's file is missing or is not for these networks.
    """
    networks = networks_of_pool(params.search_architecture(name), pool_of(params, name), f"search.{name}")
    table = cost_table(networks, params.dataset.channels, params.dataset.size)
    if params.search[name].machine is not None:
        table = with_latencies(table, params, name)
    require_attainable(table, budget_of(params, name), f"search.{name}")
    return networks, table


def check_searches(params: Params) -> None:
    """Raise the same errors for every search of the experiment."""
    tables = dict[str, CostTable]()
    for name in params.search:
        space = json.dumps([params.search_architecture(name), pool_of(params, name), params.search[name].machine])
        if space in tables:
            require_attainable(tables[space], budget_of(params, name), f"search.{name}")
        else:
            tables[space] = search_space(params, name)[1]
