"""How the processes that train one network share batches and validations, and put their sums together.

With a single process, each function here gives back what it was given.
"""

import torch

from moonshine.runtime import distributed


def share(indices: torch.Tensor) -> torch.Tensor:
    """This process's part of a batch or a split: consecutive, all parts together the whole, none twice."""
    return indices.tensor_split(distributed.WORLD_SIZE)[distributed.RANK]


def weight_of_share(images: int, batch: int) -> float:
    """What a loss that is a mean over `images` of a batch counts, when gradients are averaged over processes.

    So the average is that of the whole batch, also where it splits unevenly.
    """
    return images * distributed.WORLD_SIZE / batch


def summed(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, the same bytes in each; in place."""
    if distributed.WORLD_SIZE > 1:
        import torch.distributed as dist

        dist.all_reduce(tensor)
    return tensor
