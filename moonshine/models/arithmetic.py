"""How PyTorch computes, which decides the last bits of whatever networks give."""

import torch


def make_deterministic(threads: int) -> None:
    """A fixed number of CPU threads, deterministic kernels on the GPU; for the whole process."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
