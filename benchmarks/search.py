"""Candidates of a search in a row: as `moonshine search` ranks them, and as BlockSwap's released code does.

That builds each candidate, passes one image through it, loads a batch of its own, and computes the gradients of all
weights as well. The networks are WRN-40-2 with 400,000 parameters, the batches 128 images.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.worker import Round
from moonshine.data.loading import Images, open_images
from moonshine.models.networks import initialise
from moonshine.models.residual_blocks import residual_blocks
from moonshine.params.schema import Augmentation
from moonshine.project.records import Architecture
from moonshine.runtime import startup
from moonshine.search.fisher import branch_end, fisher_potential
from moonshine.search.network import CandidateNetwork, cost_table, networks_of_pool
from moonshine.search.ranking import first_batch
from moonshine.search.sampling import Budget, CostTable, sample
from moonshine.search.space import POOL

CANDIDATES, BATCH = 4, 128
AUGMENTATION = Augmentation(pad=1, flip=False)


def _space(data: str) -> tuple[Images, Architecture, dict[str, nn.Module], CostTable, torch.Tensor]:
    startup.set_up()
    startup.restart_with_tunables()
    images = open_images(Path(data), "train", torch.device("cpu"), None)
    channels, size, _ = images.manifest["shape"]
    architecture: Architecture = {"arch": "wrn-40-2", "classes": 10, "in_channels": channels}
    networks = networks_of_pool(architecture, POOL, "search")
    table = cost_table(networks, channels, size)
    choices, _ = sample(table, Budget("parameters", 400_000, 0.025), CANDIDATES, 0, "search", lambda: None)
    return images, architecture, networks, table, choices


def ours(data: str) -> Round:
    images, _, networks, _, choices = _space(data)
    candidates = CandidateNetwork(networks, torch.device("cpu"))
    batch, labels = first_batch(images, AUGMENTATION, 0, BATCH)

    def run_round() -> None:
        for candidate, chosen in enumerate(choices.tolist()):
            fisher_potential(candidates.become(chosen, 0, candidate), batch, labels)

    return run_round


def as_released(data: str) -> Round:
    images, architecture, _, table, choices = _space(data)

    def run_round() -> None:
        for candidate, chosen in enumerate(choices.tolist()):
            network = initialise({**architecture, "convs": table.convs(chosen)}, candidate).train()
            with torch.no_grad():
                network(torch.rand(1, *images.manifest["shape"]))
            batch, labels = next(images.training_batches(AUGMENTATION, candidate, 1, BATCH))
            activations: list[torch.Tensor] = []

            def keep(
                module: nn.Module, inputs: object, output: torch.Tensor, kept: list[torch.Tensor] = activations
            ) -> None:
                output.retain_grad()
                kept.append(output)

            for block in residual_blocks(network).values():
                branch_end(block).register_forward_hook(keep)
            cross_entropy(network(batch), labels).backward()
            sum(float((each.detach() * each.grad).sum((2, 3)).square().mean(0).sum() / 2) for each in activations)

    return run_round
