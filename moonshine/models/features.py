"""Read the outputs of named modules inside a network while it runs."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

Reduce = Callable[[torch.Tensor], torch.Tensor]


class FeatureTap:
    """Applies `reduce` to the outputs of the modules at `paths` and keeps only the results.

    After each forward pass `take()` returns them in the order of `paths`. A copy of the network is not tapped.
    """

    def __init__(self, network: nn.Module, paths: Iterable[str], reduce: Reduce):
        self.paths = tuple(paths)
        self._values: dict[str, torch.Tensor] = {}
        modules = {path: network.get_submodule(path) for path in self.paths}
        self._hooks = [
            module.register_forward_hook(_Keeper(module, path, reduce, self._values))
            for path, module in modules.items()
        ]

    def take(self) -> list[torch.Tensor]:
        """The values of the last forward pass, now released. RuntimeError if there was none since the last call."""
        if missing := [path for path in self.paths if path not in self._values]:
            raise RuntimeError(f"no features of {missing[0]}: the network was not run, or is a copy of the tapped one")
        values = [self._values[path] for path in self.paths]
        self._values.clear()
        return values

    def remove(self) -> None:
        """Leave the network as it was."""
        for hook in self._hooks:
            hook.remove()


class _Keeper:
    """The hook of one module. Copying or pickling a network includes its hooks; in the copy they do nothing."""

    def __init__(self, module: nn.Module, path: str, reduce: Reduce, values: dict[str, torch.Tensor]):
        self._module: nn.Module | None = module
        self._path, self._reduce, self._values = path, reduce, values

    def __call__(self, module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        if module is self._module:
            self._values[self._path] = self._reduce(output)

    def __getstate__(self) -> dict[str, Any]:
        return {"_module": None}
