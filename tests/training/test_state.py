"""One step of training is that of PyTorch's SGD with the recipe's schedule; what is random in it depends on nothing."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from moonshine.models.architecture import architecture_of
from moonshine.params import Network, Params, Recipe
from moonshine.project.rows import Row
from moonshine.training.objective import CrossEntropy
from moonshine.training.state import TrainingState
from tests.support.project import toy_params

CPU = torch.device("cpu")
TOY = Params.model_validate(toy_params())


def recipe(**changes: object) -> Recipe:
    return TOY.recipe.model_copy(update=changes)


def test_a_step_is_that_of_pytorchs_sgd() -> None:
    """Two steps, so that momentum and cleared gradients count."""
    architecture = architecture_of(TOY.networks["teacher"], 10, 1)
    settings = recipe(lr=0.1, momentum=0.9, weight_decay=0.01)
    state = TrainingState(Row.parse("train/teacher"), architecture, CrossEntropy(), settings, 0, CPU)
    twin = copy.deepcopy(state.network)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    labels, wrong = torch.arange(16) % 10, 0
    for step in range(2):
        images = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(step))
        state.step(images, labels, None)
        optimizer.zero_grad()
        logits = twin(images)
        cross_entropy(logits, labels).backward()
        optimizer.step()
        wrong += int((logits.argmax(1) != labels).sum())
    for name, tensor in twin.state_dict().items():
        torch.testing.assert_close(state.network.state_dict()[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    assert state.training_means()["train_top1"] == pytest.approx(100 * wrong / 32)


def test_what_dropout_drops_depends_on_the_step_alone() -> None:
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)

    def weights(disturb: bool) -> torch.Tensor:
        architecture = architecture_of(Network(arch="mobilenet_v2"), 10, 3)
        state = TrainingState(Row.parse("train/a"), architecture, CrossEntropy(), recipe(), 0, CPU)
        for _ in range(2):
            if disturb:
                torch.rand(7)
            state.step(images, labels, None)
        return state.network.get_parameter("classifier.1.weight")

    assert torch.equal(weights(False), weights(True))
