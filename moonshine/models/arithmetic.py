"""PyTorch's numerical settings, which decide the last bits of all network outputs."""

import torch


def make_deterministic(threads: int, tf32: bool = False) -> None:
    """A fixed number of CPU threads and deterministic GPU kernels, for the whole process.

    `tf32` lets a GPU round the factors in float32's convolutions and matrix products to 10 bits, which is faster;
    PyTorch's defaults do so in convolutions alone. On a CPU it changes nothing.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # the older pair of settings: of the newer ones, the compiler still reads this pair and fails if they disagree
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
