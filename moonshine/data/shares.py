"""How the processes that train one network share batches and validations, and combine their sums.

With a single process, nothing here has any effect.
"""

import torch

from moonshine.runtime import distributed


def share(indices: torch.Tensor) -> torch.Tensor:
    """This process's part of a batch or a split: consecutive; together the parts are the whole, without overlap."""
    return indices.tensor_split(distributed.WORLD_SIZE)[distributed.RANK]


def weight_of_share(images: int, batch: int) -> float:
    """The weight of a loss that is a mean over `images` of a batch, when gradients are averaged over processes.

    It makes the average that of the whole batch, even if the batch splits unevenly.
    """
    return images * distributed.WORLD_SIZE / batch


def summed(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, the same bytes in each; in place."""
    if distributed.WORLD_SIZE > 1:
        import torch.distributed as dist

        dist.all_reduce(tensor)
    return tensor
