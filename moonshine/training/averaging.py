"""An exponential moving average of a network in training."""

import copy

import torch
from torch import nn


class WeightAverage:
    """The average of a network's weights and of batch norm's running statistics over its steps.

    After each step, average = d * average + (1 - d) * network, where d is `decay`, but at most (1 + t) / (10 + t) after
    the t-th step, counted from 0, so that the start is forgotten early and short trainings have an average too. The
    average is of everything that is in the state dict, as in the references of torchvision and in timm; that limit of d
    is the one of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, network: nn.Module, decay: float):
        """Begins as a copy of the network, which must have no hooks yet; `network` is read at each update."""
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        """The average, to be used and saved like any network."""
        self._decay = decay
        self._averages, self._counts = _tensors(self.network)
        self._values, self._counts_now = _tensors(network)

    def update(self, step: int) -> None:
        """After the step of this number, counted from 0 over the whole training. Does not wait for a GPU."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        if self._counts:
            torch._foreach_copy_(self._counts, self._counts_now)


def _tensors(network: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(floating point numbers, counts of batches), which share their memory with the network's."""
    tensors = list(network.state_dict().values())
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    return floating, [tensor for tensor in tensors if not tensor.is_floating_point()]
