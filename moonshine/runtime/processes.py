"""The processes that train one network together, started by torchrun; a single one where it started none.

Only the first process writes files and messages. With a single process every function here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from moonshine.errors import DivergedError, Interrupted, MachineError
from moonshine.runtime import signals

if TYPE_CHECKING:
    import torch

_torchrun = os.environ if "TORCHELASTIC_RUN_ID" in os.environ else {}
COUNT = int(_torchrun.get("WORLD_SIZE", 1))
RANK = int(_torchrun.get("RANK", 0))
LOCAL_RANK = int(_torchrun["LOCAL_RANK"]) if _torchrun else None
"""Among the processes of this machine; None where torchrun started none."""
FIRST = RANK == 0

Value = TypeVar("Value")


@contextmanager
def joined(device: "torch.device") -> Iterator[None]:
    """Within it the processes can exchange tensors of the device and of the CPU.

    Where one of them ends early, the others raise MachineError (exit code 5) instead of waiting for it.
    """
    if COUNT == 1:
        yield
        return
    import torch.distributed as dist

    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        signals.install_handlers()
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise MachineError(
            "another process of this training ended; the same command goes on from the last checkpoint"
        ) from None
    except (DivergedError, Interrupted):  # which all raise together
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def largest(number: int) -> int:
    """The largest of all processes' numbers; waits for no device."""
    if COUNT == 1:
        return number
    import torch
    import torch.distributed as dist

    tensor = torch.tensor([number])
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor)


def wait_for_all() -> None:
    largest(0)


def of_first(value: Value) -> Value:
    """The first process's value, a plain or a tensor on the CPU, in all of them."""
    if COUNT == 1:
        return value
    import torch
    import torch.distributed as dist

    values: list[Any] = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]
