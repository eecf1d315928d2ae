"""Freed tensors' memory is used again without asking the system for pages."""

import subprocess
import sys

from support import ROOT

PROGRAM = """
import resource, torch
from moonshine.allocator import keep_freed_memory

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
