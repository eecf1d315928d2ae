"""The learning rate of a step is that of PyTorch's schedulers, stepped at every step, from the position alone."""

import itertools

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, SequentialLR

from moonshine.params import Params, Recipe
from moonshine.training.schedule import WARMUP_START, learning_rate
from tests.support.project import toy_params

TOY = Params.model_validate(toy_params())
EPOCHS, STEPS = 6, 4


def recipe(**changes: object) -> Recipe:
    settings = {"epochs": EPOCHS, "lr": 0.1, "lr_steps": [], "lr_factor": 0.5}
    return Recipe.model_validate({**TOY.recipe.model_dump(), **settings, **changes})


def rates(settings: Recipe) -> list[float]:
    positions = itertools.product(range(1, settings.epochs + 1), range(STEPS))
    return [learning_rate(settings, epoch, batch, STEPS) for epoch, batch in positions]


def of_pytorch(warmup: int, schedule: str, lowest: float) -> list[float]:
    """As the references of torchvision build it, but in steps instead of epochs."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    steps, rising = EPOCHS * STEPS, warmup * STEPS
    after: torch.optim.lr_scheduler.LRScheduler = {
        "steps": lambda: ConstantLR(optimizer, 1.0),
        "cosine": lambda: CosineAnnealingLR(optimizer, steps - rising, lowest),
        "linear": lambda: LinearLR(optimizer, 1.0, lowest / 0.1, steps - rising),
    }[schedule]()
    if warmup:
        scheduler = SequentialLR(optimizer, [LinearLR(optimizer, WARMUP_START, 1.0, rising), after], [rising])
    else:
        scheduler = after
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("warmup", [0, 1, 3])
@pytest.mark.parametrize(
    ("schedule", "lowest"), [("steps", 0.0), ("cosine", 0.0), ("cosine", 0.02), ("linear", 0.0), ("linear", 0.02)]
)
def test_a_schedule_is_that_of_pytorch(schedule: str, lowest: float, warmup: int) -> None:
    ours = rates(recipe(schedule=schedule, warmup_epochs=warmup, lr_min=lowest))
    assert ours == pytest.approx(of_pytorch(warmup, schedule, lowest), rel=1e-6)


def test_the_learning_rate_falls_after_the_epochs_listed() -> None:
    steps = rates(recipe(lr_steps=[2, 4]))
    assert steps[::STEPS] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])
    assert steps[::STEPS] == steps[STEPS - 1 :: STEPS], "the same in the whole epoch"
    assert rates(recipe(lr_steps=[2, 4], schedule="steps")) == steps


def test_the_steps_of_the_learning_rate_count_the_warm_up() -> None:
    with_warmup, without = rates(recipe(lr_steps=[2, 4], warmup_epochs=1)), rates(recipe(lr_steps=[2, 4]))
    assert with_warmup[STEPS:] == without[STEPS:]
    assert with_warmup[:STEPS] == pytest.approx([0.001, 0.02575, 0.0505, 0.07525])
