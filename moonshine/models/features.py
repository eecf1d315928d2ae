"""Read what a network computes inside, at named modules, while it runs."""

from collections.abc import Callable, Iterable

import torch
from torch import nn


class FeatureTap:
    """Applies `reduce` to the outputs of the modules at `paths` and keeps only the results.

    After each forward pass `values` holds them in the order of `paths`.
    """

    def __init__(self, network: nn.Module, paths: Iterable[str], reduce: Callable[[torch.Tensor], torch.Tensor]):
        self.paths = tuple(paths)
        self._values: dict[str, torch.Tensor] = {}
        for path in self.paths:
            network.get_submodule(path).register_forward_hook(self._keeper(path, reduce))

    def _keeper(self, path: str, reduce: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            self._values[path] = reduce(output)

        return keep

    def take(self) -> list[torch.Tensor]:
        """The values of the last forward pass; they are let go here."""
        values = [self._values[path] for path in self.paths]
        self._values.clear()
        return values
