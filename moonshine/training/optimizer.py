"""PyTorch's optimiser of a recipe, with the weight decay of each parameter."""

import torch
from torch import nn

from moonshine.models.norms import norm_parameters
from moonshine.params.schema import Recipe

BETA2 = 0.999
"""Of AdamW, as by PyTorch's default; its beta1 is the recipe's momentum."""


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser, with its state at zero, so that a checkpoint before the first step has the size of later ones.

    Fused, because fused optimisers take `found_inf`, which leaves the weights alone without waiting for a GPU.
    """
    groups = _groups(network, recipe)
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, BETA2)
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            groups, recipe.lr, betas, weight_decay=recipe.weight_decay, fused=True
        )
        for parameter in _parameters(optimizer):
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return optimizer
    nesterov = recipe.optimizer == "nesterov"
    optimizer = torch.optim.SGD(
        groups, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=nesterov, fused=True
    )
    if recipe.momentum:  # else torch (2.14) uses uninitialised memory for it if float16 skips the first step
        for parameter in _parameters(optimizer):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _groups(network: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """All parameters, those of normalisation layers apart if they have a weight decay of their own."""
    parameters = list(network.parameters())
    if recipe.norm_weight_decay is None:
        return [{"params": parameters}]
    of_norms = norm_parameters(network)
    chosen = {id(parameter) for parameter in of_norms}
    return [
        {"params": of_norms, "weight_decay": recipe.norm_weight_decay},
        {"params": [parameter for parameter in parameters if id(parameter) not in chosen]},
    ]


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
