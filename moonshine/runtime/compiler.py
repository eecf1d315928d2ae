"""PyTorch's compiler, torch._dynamo, imported by those who compile only."""

import importlib
import logging
import sys
from types import ModuleType
from typing import Any


def import_compiler_when_used() -> None:
    """Spare the processes that don't compile 0.75 s: torchvision, optimisers and meta tensors import it unused.

    They ask for a few functions by which it is told what not to compile. Those are promised here; to ask for anything
    else imports it. Has no effect where it is imported already.
    """
    if COMPILER not in sys.modules:
        sys.modules[COMPILER] = _Promise(COMPILER, disable=_disable, graph_break=lambda: None)
        sys.modules[UTILITIES] = _Promise(UTILITIES, is_compile_supported=_is_compile_supported)


COMPILER, UTILITIES, TRITON = "torch._dynamo", "torch._dynamo.utils", "triton"


def leave_out_triton() -> None:
    """Spare what compiles for a CPU the language of GPUs' kernels: 70 MB, without which PyTorch's CPU wheels come.

    Has no effect where it is imported already.
    """
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
