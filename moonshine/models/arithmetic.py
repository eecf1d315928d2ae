"""PyTorch's numerical settings, which decide the last bits of all network outputs."""

import torch


def make_deterministic(threads: int) -> None:
    """A fixed number of CPU threads and deterministic GPU kernels, for the whole process."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
