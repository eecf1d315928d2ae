"""Freed tensors' memory is used again without asking the system for pages, and lies in huge ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

TRANSPARENT_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

PROGRAM = """
import resource, torch
from moonshine.runtime.allocator import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        tensors = [torch.zeros(4_000_000) for _ in range(10)]  # 160 MB
        tensors.clear()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = new_pages()
keep_freed_memory()
new_pages()
print(before, new_pages())
"""


def test_memory_of_freed_tensors_is_used_again() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    by_default, kept = map(int, result.stdout.split())
    assert by_default > 100
    assert kept < by_default / 10


HUGE_PAGES = """
import resource, torch
from moonshine.runtime.allocator import keep_freed_memory

keep_freed_memory()
tensors = [torch.zeros(4_000_000) for _ in range(10)]  # 160 MB
heap = open("/proc/self/smaps").read().split("[heap]")[1]
print(next(line.split()[1] for line in heap.splitlines() if line.startswith("AnonHugePages")))
"""


def huge_pages_of_heap(limit: str) -> int:
    """KiB of the heap of a process that holds 160 MB of tensors and has this limit of addresses."""
    command = ["bash", "-c", 'ulimit -v "$0" && exec "$@"', limit, sys.executable, "-c", HUGE_PAGES]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif("[never]" in TRANSPARENT_HUGE_PAGES.read_text(), reason="this kernel gives no huge pages")
def test_tensors_lie_in_huge_pages() -> None:
    assert huge_pages_of_heap("unlimited") > 100_000


def test_a_limit_of_addresses_is_left_to_the_work() -> None:
    """Addresses reserved for huge pages would be missing where each counts."""
    assert huge_pages_of_heap(str(8 << 20)) == 0
