"""The C library's memory allocator, set up for tensors."""

import ctypes
import mmap
import os
import resource
from pathlib import Path

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER = -1

LARGEST_BLOCK = 1 << 30
"""Bytes; a larger tensor gets pages of its own from the system."""

NO_OVERCOMMIT = "2"


def keep_freed_memory() -> None:
    """Reuse the memory of freed tensors, and have it in huge pages.

    Memory that goes back to the system comes anew page by page, each cleared when it is first touched, which takes up
    to eight per cent of a training step on a CPU; and the processor remembers the places of few pages at once, so
    pages of 2 MiB instead of 4 KiB save as much again. Where the C library is none of GNU's, nothing happens.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
    libc.mallopt(M_TRIM_THRESHOLD, NEVER)
    if _addresses_are_free():
        _grow_heap(libc)
        _ask_for_huge_pages(libc)


def _addresses_are_free() -> bool:
    """Whether memory counts only once it is used: no limit of addresses (`ulimit -v`), none of the kernel's either."""
    limits = [resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    policy = Path("/proc/sys/vm/overcommit_memory")
    return set(limits) == {resource.RLIM_INFINITY} and policy.exists() and policy.read_text().strip() != NO_OVERCOMMIT


def _grow_heap(libc: ctypes.CDLL) -> None:
    """To addresses of half the machine's memory; the kernel refuses to fork where a heap exceeds all of it."""
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    half = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2
    for block in [libc.malloc(LARGEST_BLOCK - mmap.PAGESIZE) for _ in range(half // LARGEST_BLOCK)]:
        libc.free(block)


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """For the heap; a kernel without them, or told never to give them, goes on with small ones."""
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for mapping in Path("/proc/self/maps").read_text().splitlines():
        if mapping.endswith("[heap]"):
            start, end = (int(address, 16) for address in mapping.split()[0].split("-"))
            libc.madvise(start, end - start, mmap.MADV_HUGEPAGE)
