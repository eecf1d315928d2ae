"""What a command sets up in its process before its main imports, for speed and to silence warnings.

Only the command line calls this: in a program that imports moonshine as a library, Python, torch and Pillow keep their
settings.
"""

import gc
import importlib
import logging
import os
import re
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from moonshine.runtime.cpus import processor

VARIABLE = "GLIBC_TUNABLES"
TUNABLES = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        f"glibc.malloc.mmap_threshold={1 << 30}",  # a larger tensor gets its own pages from the kernel
        f"glibc.malloc.trim_threshold={1 << 36}",
    )
)
"""Reuse the memory of freed tensors, and use huge pages.

Memory returned to the kernel is zeroed again page by page when it is next touched, which takes up to 8 % of a training
step on a CPU. Huge pages (2 MiB instead of 4 KiB) need fewer TLB entries and save as much again.
"""


def restart_with_tunables() -> None:
    """Re-execute this command, because the C library reads its settings only when a process starts.

    Does nothing if the settings are inherited (engines, images and torchrun pass them on) or the user's own, or if the
    C library is not glibc.
    """
    if VARIABLE in os.environ or not _has_glibc() or sys.argv[0] in ("", "-"):  # stdin cannot be read again
        return
    os.environ[VARIABLE] = TUNABLES
    with suppress(OSError):  # the environment has become too long
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (a list of words)


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (OSError, ValueError, AttributeError):  # on other systems
        return False


def set_up() -> None:
    """Import less, collect garbage less often, load images faster, and hide warnings that tell a user nothing."""
    gc.set_threshold(100_000)  # else it scans torch's million objects again and again as they are created
    import_compiler_when_used()
    # Pillow then reuses its memory: having the kernel zero pages for every image takes a fifth of the decoding time.
    os.environ.setdefault("PILLOW_BLOCKS_MAX", "8")
    warnings.filterwarnings("ignore", module="PIL")  # about oddities in a file; `prepare` records them once
    warnings.filterwarnings("ignore", message="CUDA initialization: ")  # runtime/device.py reports it in one line


def import_compiler_when_used() -> None:
    """Save processes that don't compile 0.75 s: torchvision, optimisers and meta tensors import the compiler unused.

    They only use a few functions that tell it what not to compile. Those are stubbed here; accessing anything else
    imports the compiler. Has no effect if it is imported already.
    """
    if COMPILER not in sys.modules:
        sys.modules[COMPILER] = _Promise(COMPILER, disable=_disable, graph_break=lambda: None)
        sys.modules[UTILITIES] = _Promise(UTILITIES, is_compile_supported=_is_compile_supported)


COMPILER, UTILITIES, TRITON = "torch._dynamo", "torch._dynamo.utils", "triton"


def leave_out_triton(wanted: str) -> None:
    """Skip importing triton when compiling for a CPU: saves 70 MB; PyTorch's CPU wheels come without it too.

    `wanted` is `machine.device`. Has no effect if triton is imported already.
    """
    import torch

    if wanted != "cpu" and torch.cuda.is_available():
        return
    sys.modules.setdefault(TRITON, None)  # type: ignore[arg-type]  # None makes Python refuse the import
    for logger in ("torch.utils.flop_counter", "torch.utils.cpp_extension"):  # they warn that it and CUDA are missing
        logging.getLogger(logger).setLevel(logging.ERROR)


def keep_compiled_code(folder: Path) -> None:
    """Have the compiler keep its code and Triton's in the folder, by kind of CPU, unless the user has named a place.

    Code for one CPU may have instructions that another one with the same vector width lacks.
    """
    kind = re.sub(r"\W+", "-", processor()).strip("-").lower()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((folder / kind).absolute()))


class _Promise(ModuleType):
    """Stands in for a module until anything other than `known` is accessed."""

    def __init__(self, name: str, **known: Any):
        super().__init__(name)
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        # code that scans all modules, as `inspect` does, asks for __file__; imports of submodules ask for __path__
        if name.startswith("__") and (self.__name__, name) != (COMPILER, "__path__"):
            raise AttributeError(name)
        return getattr(_imported(self.__name__), name)


def _imported(name: str) -> ModuleType:
    for promised in (COMPILER, UTILITIES):
        if isinstance(sys.modules.get(promised), _Promise):
            del sys.modules[promised]
    return importlib.import_module(name)


def _disable(function: Any = None, *settings: Any, **named: Any) -> Any:
    """Returns torch's own functions unchanged; wraps others with the compiler's `disable`."""
    if named == {"wrapping": False}:
        return function
    return _imported(COMPILER).disable(function, *settings, **named)


def _is_compile_supported(device: str) -> bool:
    return _imported(UTILITIES).is_compile_supported(device)
