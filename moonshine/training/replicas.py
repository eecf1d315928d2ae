"""One network in each of the processes that train it together.

What a network's future depends on is equal in all of them; the statistics of batch norm are each process's own, and
the first process's are validated, saved and published.
"""

from torch import nn

from moonshine.runtime import processes


def replicated(network: nn.Module) -> nn.Module:
    """The network, or a wrapper around it whose backward pass averages the gradients of all processes."""
    if processes.COUNT == 1:
        return network
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)


def share_statistics(network: nn.Module) -> None:
    """Give all processes the first one's buffers, which are batch norm's running statistics."""
    if processes.COUNT > 1:
        import torch.distributed as dist

        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
