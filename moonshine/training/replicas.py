"""One network in each of the processes that train it together.

Everything that training depends on is equal in all of them; batch-norm statistics are each process's own, and the
first process's are validated, saved and published.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import nn

from moonshine.errors import DivergedError, Interrupted, MachineError, first_line
from moonshine.runtime import distributed, signals

LONGEST_WAIT = timedelta(minutes=15)
"""For another process, which may be waiting for images or writing a checkpoint; a machine without power never
answers."""


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
        if device.type == "cuda":
            dist.init_process_group("cpu:gloo,cuda:nccl", timeout=LONGEST_WAIT, device_id=device)
        else:
            dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        raise MachineError(
            f"the processes of this training cannot connect ({first_line(error)}); if they are on several machines, "
            "name the network interface in GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME"
        ) from None
    try:
        signals.install_handlers()
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise MachineError(
            f"another process of this training ended or does not answer ({first_line(error)}); the same command "
            "resumes from the last checkpoint"
        ) from None
    except (DivergedError, Interrupted):  # which all processes raise together
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def average_gradients(network: nn.Module) -> None:
    """Replace the gradients by their mean over all processes, the same bytes in each.

    They are summed as one vector, in the order of the parameters. The place of a number in that vector decides in which
    order the processes' values are added, and so its last bit if there are more than two. DistributedDataParallel
    rearranges its vectors after the first step of a process, which in a resumed training is another step.
    """
    if distributed.WORLD_SIZE == 1:
        return
    import torch.distributed as dist

    gradients = [_flat(parameter.grad) for parameter in network.parameters() if parameter.grad is not None]
    joint = torch.cat(gradients).div_(distributed.WORLD_SIZE)
    dist.all_reduce(joint)
    for gradient, mean in zip(gradients, joint.split([len(gradient) for gradient in gradients])):
        gradient.copy_(mean)


def _flat(gradient: torch.Tensor) -> torch.Tensor:
    """A view of its numbers in the order in which they are in memory, channels first or last."""
    return gradient.as_strided((gradient.numel(),), (1,))


def share_statistics(network: nn.Module) -> None:
    """Give all processes the first one's buffers, which are batch norm's running statistics."""
    if distributed.WORLD_SIZE > 1:
        import torch.distributed as dist

        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
