"""One network in each of the processes that train it together.

Everything that training depends on is equal in all of them; batch-norm statistics are each process's own, and the
first process's are validated, saved and published.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from moonshine.errors import DivergedError, Interrupted, MachineError
from moonshine.runtime import distributed, signals


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Inside it, the processes can exchange tensors on the device and on the CPU.

    If one of them ends early, the others raise MachineError (exit code 5) instead of waiting for it.
    """
    if distributed.WORLD_SIZE == 1:
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
            "another process of this training ended; the same command resumes from the last checkpoint"
        ) from None
    except (DivergedError, Interrupted):  # which all processes raise together
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def replicated(network: nn.Module) -> nn.Module:
    """The network, or a wrapper around it whose backward pass averages the gradients of all processes."""
    if distributed.WORLD_SIZE == 1:
        return network
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)


def share_statistics(network: nn.Module) -> None:
    """Give all processes the first one's buffers, which are batch norm's running statistics."""
    if distributed.WORLD_SIZE > 1:
        import torch.distributed as dist

        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
