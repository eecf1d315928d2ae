"""torch's compiler is imported when something compiles, and then it is all there."""

import subprocess
import sys

import pytest

from benchmarks.separate_project import ROOT

BEFORE = """
import inspect, sys
from moonshine.runtime.startup import import_compiler_when_used
import_compiler_when_used()
import torch, torchvision

def imported():
    return "torch._dynamo.convert_frame" in sys.modules

network = torchvision.models.resnet18()
optimizer = torch.optim.SGD(network.parameters(), 0.1)
network(torch.zeros(2, 3, 32, 32)).sum().backward()
optimizer.step()
inspect.getmodule(torch)
assert not imported()
"""
USES = {
    "compile": """
torch.compile(torch.sin, backend="eager")(torch.ones(1))
""",
    "disable": """
@torch.compiler.disable(recursive=False)
def add(left, right):
    return left + right
assert add(1, 2) == 3
""",
    "submodule": """
from torch._dynamo.exc import Unsupported
""",
    "torchvision's operation that asks for it": """
torch.use_deterministic_algorithms(True)
images = torch.rand(1, 3, 8, 8, requires_grad=True)
torchvision.ops.roi_align(images, torch.tensor([[0, 0, 0, 4, 4.0]]), (2, 2))
""",
}
AFTER = """
assert imported()
import torch._dynamo, torch._dynamo.utils
assert torch._dynamo.__file__ and torch._dynamo.utils.__file__
"""


@pytest.mark.parametrize("use", ["compile", *(pytest.param(u, marks=pytest.mark.slow) for u in USES if u != "compile")])
def test_the_compiler_is_imported_when_it_is_used(use: str) -> None:
    program = BEFORE + USES[use] + AFTER
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_for_a_cpu_it_comes_without_the_kernels_language_for_gpus_and_in_silence() -> None:
    program = (
        BEFORE
        + """
from moonshine.models.networks import compile_network
from moonshine.runtime.startup import leave_out_triton
leave_out_triton("cpu")
compiled = compile_network(torch.nn.Conv2d(1, 4, 3))
assert torch.allclose(compiled(torch.ones(1, 1, 4, 4)), compiled._orig_mod(torch.ones(1, 1, 4, 4)), atol=1e-6)
assert sys.modules["triton"] is None
"""
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
