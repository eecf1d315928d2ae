"""Networks drawn at random within a budget, from a table of what each convolution costs in each block.

As in BlockSwap's code, each block draws its convolution uniformly from the pool, whole networks are kept or dropped,
and one that is drawn twice is kept twice. Nothing is built.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from moonshine.data.order import generator
from moonshine.errors import ParamsError

COSTS = ("parameters", "macs", "activations")
"""What every table has. `parameters` are the trainable ones, without batch norm's statistics, as in the paper."""
LATENCY = "latency"
"""One more cost of tables to which measured latencies were added, in whole nanoseconds, so that sums are exact."""
NANOSECONDS = 1_000_000
"""In a millisecond, the unit of params.yaml, files and messages."""
CHUNK = 1 << 15
"""Networks drawn at once; part of the definition of the sample."""
MOST_MISSES = 1 << 22
"""Draws in a row outside the budget after which a search gives up."""


@dataclass(frozen=True)
class CostTable:
    """The costs of networks that differ in the convolutions of their residual blocks."""

    pool: tuple[str, ...]
    fixed: dict[str, int]
    """Cost -> that of everything outside the blocks."""
    of_blocks: dict[str, torch.Tensor]
    """Cost -> that of each block with each convolution of the pool, int64 (blocks, pool)."""

    @property
    def costs(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.of_blocks)

    @property
    def blocks(self) -> int:
        return len(self.of_blocks[COSTS[0]])

    def totals(self, cost: str, choices: torch.Tensor) -> torch.Tensor:
        """Of networks given by positions in the pool, int64 (networks, blocks): int64 (networks,)."""
        return self.fixed[cost] + self.of_blocks[cost][torch.arange(self.blocks), choices].sum(1)

    def range(self, cost: str) -> tuple[int, int]:
        """The least and the most that a network can cost."""
        table = self.of_blocks[cost]
        return tuple(self.fixed[cost] + int(each.sum()) for each in (table.amin(1), table.amax(1)))  # type: ignore[return-value]

    def convs(self, choices: Sequence[int]) -> list[str]:
        """The convolutions of one network."""
        return [self.pool[choice] for choice in choices]


@dataclass(frozen=True)
class Budget:
    """A network is within it if its cost differs from `amount` by less than `tolerance` * `amount`."""

    cost: str
    amount: int
    tolerance: float

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most that is within it."""
        margin = self.tolerance * self.amount
        return math.floor(self.amount - margin) + 1, math.ceil(self.amount + margin) - 1

    def __str__(self) -> str:
        return f"{in_words(self.cost, self.amount)} within {100 * self.tolerance:g} %"


def in_words(cost: str, amount: int) -> str:
    """An amount with its unit, for a message."""
    return f"{amount / NANOSECONDS:.4g} ms" if cost == LATENCY else f"{amount:,}"


def require_attainable(table: CostTable, budget: Budget, key: str) -> None:
    """ParamsError (exit code 2) for a budget that no network of the table meets; `key` is the search's."""
    (least, most), (low, high) = table.range(budget.cost), budget.bounds
    if most < low or least > high:
        attainable = f"from {in_words(budget.cost, least)} to {in_words(budget.cost, most)}"
        raise ParamsError(
            f"{key}.{budget.cost}: {budget}, but with this pool networks have {attainable}; choose an amount between "
            "these"
        )


def sample(
    table: CostTable, budget: Budget, count: int, seed: int, key: str, poll: Callable[[], None]
) -> tuple[torch.Tensor, int]:
    """`count` networks within the budget, int64 (count, blocks) of positions in the pool, and how many were drawn.

    A pure function of its arguments but for `poll`, which is called now and then. Raises ParamsError (exit code 2) if
    none of MOST_MISSES draws in a row is within the budget.
    """
    require_attainable(table, budget, key)
    random = generator("search", seed)
    low, high = budget.bounds
    kept = list[torch.Tensor]()
    drawn = found = misses = 0
    while True:
        poll()
        choices = torch.randint(len(table.pool), (CHUNK, table.blocks), generator=random)
        totals = table.totals(budget.cost, choices)
        hits = ((totals >= low) & (totals <= high)).nonzero().flatten()[: count - found]
        kept.append(choices[hits])
        found += len(hits)
        if found == count:
            return torch.cat(kept), drawn + int(hits[-1]) + 1
        drawn += CHUNK
        misses = 0 if len(hits) else misses + CHUNK
        if misses >= MOST_MISSES:
            raise ParamsError(
                f"{key}.{budget.cost}: {budget}: {found:,} of {drawn:,} networks drawn from the pool are, and none of "
                f"the last {misses:,}; choose another amount, tolerance or pool, or fewer than {count:,} candidates"
            )
