"""The processes that train one network together, started by torchrun; a single one where it started none.

Each batch of the recipe is shared out among them and each validation too. What a network's future depends on is equal
in all of them; the statistics of batch norm are each process's own, and the first process's are validated, saved and
published. Only the first process writes files and messages. With a single process every function here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from moonshine import signals
from moonshine.errors import DivergedError, Interrupted, MachineError

if TYPE_CHECKING:
    import torch
    from torch import nn

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


def replicated(network: "nn.Module") -> "nn.Module":
    """The network, or a wrapper around it whose backward pass averages the gradients of all processes."""
    if COUNT == 1:
        return network
    import warnings

    from torch.nn.parallel import DistributedDataParallel

    # of 1x1 convolutions laid out channels last, whose strides can be written in two ways
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)


def share_statistics(network: "nn.Module") -> None:
    """Give all processes the first one's buffers, which are batch norm's running statistics."""
    if COUNT > 1:
        import torch.distributed as dist

        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)


def share(indices: "torch.Tensor") -> "torch.Tensor":
    """This process's part of a batch or a split: consecutive, all parts together the whole, none twice."""
    return indices.tensor_split(COUNT)[RANK]


def weight_of_share(images: int, batch: int) -> float:
    """What a loss that is a mean over `images` of a batch counts, when gradients are averaged over processes.

    So the average is that of the whole batch, also where it splits unevenly.
    """
    return images * COUNT / batch


def summed(tensor: "torch.Tensor") -> "torch.Tensor":
    """The sum over all processes, the same bytes in each; in place."""
    if COUNT > 1:
        import torch.distributed as dist

        dist.all_reduce(tensor)
    return tensor


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
