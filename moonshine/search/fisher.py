"""The Fisher potential of a network, by which BlockSwap ranks candidates.

Turner et al., "BlockSwap", ICLR 2020 (arXiv 1906.04113), equation 2, after Theis et al., "Faster gaze prediction with
dense networks and Fisher pruning", 2018. With a the activation of a channel before a block's residual addition and g
the gradient of the loss with respect to it, for N images:

    Delta_c = 1 / (2N) * sum_n (sum_ij a_nij * g_nij)^2

The Fisher potential is the sum of Delta_c over all channels of all residual blocks.
"""

from functools import partial
from typing import Any

import torch
from torch import nn

from moonshine.data.class_weights import weighted_cross_entropy
from moonshine.data.labels import Labels
from moonshine.models.residual_blocks import residual_blocks
from moonshine.models.wide_resnet import WideBlock


def fisher_potential(network: nn.Module, images: torch.Tensor, labels: Labels) -> float:
    """Of a network in its present mode, for the cross-entropy of one batch; weights and their gradients stay as are.

    `images` is float (batch, channels, height, width), `labels` (batch,). All sums but those
    over the positions of a map are in float64.
    """
    # The gradient of this input of all probes is what is asked for: that takes the backward pass through every probe,
    # and neither below the first one nor to the weights.
    anchor = torch.zeros((), device=images.device, requires_grad=True)
    deltas: list[torch.Tensor] = []
    hooks = [
        branch_end(block).register_forward_hook(partial(_probe, anchor, deltas))
        for block in residual_blocks(network).values()
    ]
    try:
        torch.autograd.grad(weighted_cross_entropy(network(images), labels, None), anchor)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(deltas).sum().item()


def branch_end(block: nn.Module) -> nn.Module:
    """The module whose output a residual block adds to its shortcut.

    In pre-activation blocks, which are those of BlockSwap's code, it is the last convolution. In torchvision's blocks
    it is the batch norm after that. Before it, the probe would say little: batch norm undoes any change of a channel's
    scale, so that over the batch a * g adds up to zero, and a channel that is zero there is not zero in the sum.
    """
    if isinstance(block, WideBlock):
        return block.conv1 if block.conv2 is None else block.conv2
    return block.get_submodule("bn2")


def _probe(
    anchor: torch.Tensor, deltas: list[torch.Tensor], module: nn.Module, inputs: object, output: torch.Tensor
) -> torch.Tensor:
    return _Probe.apply(output, anchor, deltas)


class _Probe(torch.autograd.Function):
    """The identity; in the backward pass, appends Delta_c of each channel, float64 (channels,), to a list."""

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, anchor: torch.Tensor, deltas: list[torch.Tensor]) -> torch.Tensor:
        ctx.save_for_backward(output)
        ctx.deltas = deltas
        return output.clone()  # because torchvision's blocks add the shortcut in place

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (output,) = ctx.saved_tensors
        per_image = (output * gradient).sum((2, 3)).double()
        ctx.deltas.append(per_image.square().sum(0) / (2 * len(output)))
        return gradient, gradient.new_zeros(()), None
