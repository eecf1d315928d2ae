"""What a command sets up in its process, for speed and for silence, before it imports what it works with.

None but the command line calls this: in a program that imports moonshine as a library, Python, torch and Pillow stay as
they are.
"""

import gc
import importlib
import logging
import os
import sys
import warnings
from contextlib import suppress
from types import ModuleType
from typing import Any

VARIABLE = "GLIBC_TUNABLES"
TUNABLES = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        f"glibc.malloc.mmap_threshold={1 << 30}",  # a larger tensor gets pages of its own from the system
        f"glibc.malloc.trim_threshold={1 << 36}",
    )
)
"""Reuse the memory of freed tensors, and have it in huge pages.

Memory returned to the kernel is zeroed again page by page when it is next touched, which takes up to 8 % of a training
step on a CPU. Huge pages (2 MiB instead of 4 KiB) need fewer TLB entries and save as much again.
"""


def restart_with_tunables() -> None:
    """Start this very command once more, because the C library reads its settings only when a process starts.

    Engines, images and torchrun hand the settings on, and a user's own stay: then nothing happens, nor does it where
    the C library is not GNU's.
    """
    if VARIABLE in os.environ or not _has_glibc() or sys.argv[0] in ("", "-"):  # a program that came by stdin is gone
        return
    os.environ[VARIABLE] = TUNABLES
    with suppress(OSError):  # the environment has become too long
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (a list of words)


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (OSError, ValueError, AttributeError):  # of other systems
        return False


def set_up() -> None:
    """Import and collect less, load images faster, and leave out warnings that tell a user nothing."""
    gc.set_threshold(100_000)  # else it looks through the million objects of torch again and again as they are made
    import_compiler_when_used()
    # Pillow uses its memory again: having the kernel zero pages for every image takes a fifth of its decoding.
    os.environ.setdefault("PILLOW_BLOCKS_MAX", "8")
    warnings.filterwarnings("ignore", module="PIL")  # of what is odd in a file; `prepare` records it once
    # of 1x1 convolutions laid out channels last, whose strides can be written in two ways
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")


def import_compiler_when_used() -> None:
    """Spare the processes that don't compile 0.75 s: torchvision, optimisers and meta tensors import it unused.

    They ask for a few functions by which it is told what not to compile. Those are promised here; to ask for anything
    else imports it. Has no effect if it is imported already.
    """
    if COMPILER not in sys.modules:
        sys.modules[COMPILER] = _Promise(COMPILER, disable=_disable, graph_break=lambda: None)
        sys.modules[UTILITIES] = _Promise(UTILITIES, is_compile_supported=_is_compile_supported)


COMPILER, UTILITIES, TRITON = "torch._dynamo", "torch._dynamo.utils", "triton"


def leave_out_triton(wanted: str) -> None:
    """Spare what compiles for a CPU the language of GPUs' kernels: 70 MB, without which PyTorch's CPU wheels come.

    `wanted` is `machine.device`. Has no effect where triton is imported already.
    """
    import torch

    if wanted != "cpu" and torch.cuda.is_available():
        return
    sys.modules.setdefault(TRITON, None)  # type: ignore[arg-type]  # Python's sign for what shall not be imported
    for logger in ("torch.utils.flop_counter", "torch.utils.cpp_extension"):  # which miss it, and CUDA
        logging.getLogger(logger).setLevel(logging.ERROR)


class _Promise(ModuleType):
    """In the place of a module until something but `known` is asked of it."""

    def __init__(self, name: str, **known: Any):
        super().__init__(name)
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        # those who look through all modules, as `inspect` does, ask for __file__; imports of submodules for __path__
        if name.startswith("__") and (self.__name__, name) != (COMPILER, "__path__"):
            raise AttributeError(name)
        return getattr(_imported(self.__name__), name)


def _imported(name: str) -> ModuleType:
    for promised in (COMPILER, UTILITIES):
        if isinstance(sys.modules.get(promised), _Promise):
            del sys.modules[promised]
    return importlib.import_module(name)


def _disable(function: Any = None, *settings: Any, **named: Any) -> Any:
    """What torch's own functions are wrapped in lets them be as they are; for others it is the compiler's."""
    if named == {"wrapping": False}:
        return function
    return _imported(COMPILER).disable(function, *settings, **named)


def _is_compile_supported(device: str) -> bool:
    return _imported(UTILITIES).is_compile_supported(device)
