"""Normalisation layers: their parameters, and residual blocks that begin as the identity."""

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from moonshine.models.residual_blocks import SingleBlock

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
)
"""Layers whose parameters `norm_weight_decay` is for: those with parameters of torchvision's
`split_normalization_params`."""


def norm_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Weights and biases of the normalisation layers, in the network's order."""
    return [parameter for layer in network.modules() if isinstance(layer, NORMS) for parameter in layer.parameters()]


def zero_residual_norms(network: nn.Module) -> None:
    """Set the weight of the last batch norm of each residual block to 0, so that blocks begin as the identity.

    As `zero_init_residual` of torchvision's ResNets, for any of them (Goyal et al., "Accurate, Large Minibatch SGD",
    2017, section 5.1).
    """
    for block in network.modules():
        if isinstance(block, BasicBlock | SingleBlock):
            nn.init.zeros_(block.bn2.weight)
        elif isinstance(block, Bottleneck):
            nn.init.zeros_(block.bn3.weight)
