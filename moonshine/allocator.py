"""The C library's memory allocator, set up for tensors."""

import ctypes

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Reuse the memory of freed tensors instead of giving it back to the system and asking for it again each step.

    New memory comes page by page, each cleared by the system when it is first touched, which takes up to eight per
    cent of a training step on a CPU. Where the C library is none of GNU's, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
