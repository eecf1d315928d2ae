"""The processes that train one network together, started by torchrun; a single one if it started none.

Only the first process writes files and messages. With a single process every function here does nothing.
"""

import os
from typing import Any, TypeVar

_torchrun = os.environ if "TORCHELASTIC_RUN_ID" in os.environ else {}
WORLD_SIZE = int(_torchrun.get("WORLD_SIZE", 1))
RANK = int(_torchrun.get("RANK", 0))
LOCAL_RANK = int(_torchrun["LOCAL_RANK"]) if _torchrun else None
"""Rank among the processes of this machine; None if torchrun started none."""
LOCAL_WORLD_SIZE = int(_torchrun.get("LOCAL_WORLD_SIZE", 1))
"""Number of the processes of this machine."""
IS_MAIN = RANK == 0
"""Whether this is the process that writes files and messages."""

Value = TypeVar("Value")


def largest(*numbers: int) -> tuple[int, ...]:
    """The largest that any process has of each of the numbers; does not wait for any device."""
    if WORLD_SIZE == 1:
        return numbers
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(numbers)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tuple(tensor.tolist())


def wait_for_all() -> None:
    largest(0)


def gather(value: Value) -> list[Value]:
    """The value of each process, by rank."""
    if WORLD_SIZE == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * WORLD_SIZE
    dist.all_gather_object(values, value)
    return values


def broadcast_from_main(value: Value) -> Value:
    """The first process's value (a plain value or a CPU tensor) in all processes."""
    if WORLD_SIZE == 1:
        return value
    import torch
    import torch.distributed as dist

    values: list[Any] = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]
