"""Read what a network computes inside, at named modules, while it runs."""

from collections.abc import Callable, Iterable

import torch
from torch import nn


class FeatureTap:
    """Applies `reduce` to the outputs of the modules at `paths` and keeps only the results.

    After each forward pass `take()` gives them in the order of `paths`. A copy of the network is not tapped.
    """

    def __init__(self, network: nn.Module, paths: Iterable[str], reduce: Callable[[torch.Tensor], torch.Tensor]):
        self.paths = tuple(paths)
        self._values: dict[str, torch.Tensor] = {}
        modules = {path: network.get_submodule(path) for path in self.paths}
        self._hooks = [
            module.register_forward_hook(self._keeper(module, path, reduce)) for path, module in modules.items()
        ]

    def _keeper(
        self, tapped: nn.Module, path: str, reduce: Callable[[torch.Tensor], torch.Tensor]
    ) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            if module is tapped:  # deepcopy takes hooks along
                self._values[path] = reduce(output)

        return keep

    def take(self) -> list[torch.Tensor]:
        """The values of the last forward pass; they are let go here. RuntimeError if there was none since."""
        if missing := [path for path in self.paths if path not in self._values]:
            raise RuntimeError(f"no features of {missing[0]}: the network was not run, or not through this layer")
        values = [self._values[path] for path in self.paths]
        self._values.clear()
        return values

    def remove(self) -> None:
        """Leave the network as it was."""
        for hook in self._hooks:
            hook.remove()
