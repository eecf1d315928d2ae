"""Each key of a recipe does what the function of PyTorch or torchvision does that it is named after, and nothing else.

A few steps of a toy network on random images, without a command.
"""

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18, resnet50
from torchvision.ops._utils import split_normalization_params

from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import TeacherOutputs
from moonshine.models.architecture import architecture_of
from moonshine.models.networks import build_network, initialise
from moonshine.models.norms import norm_parameters, zero_residual_norms
from moonshine.params import Network, Params, Recipe
from moonshine.project.rows import Row
from moonshine.training.objective import CrossEntropy
from moonshine.training.state import TrainingState
from tests.support.project import toy_params

CPU = torch.device("cpu")
TOY = Params.model_validate(toy_params())
EPOCHS, STEPS = 2, 3
LABELS = torch.arange(16) % 10
KEYS: dict[str, Any] = {
    "schedule": "cosine",
    "warmup_epochs": 1,
    "optimizer": "nesterov",
    "norm_weight_decay": 0.0,
    "clip_grad_norm": 0.1,
    "label_smoothing": 0.1,
    "ema_decay": 0.9,
    "zero_init_residual": True,
}
ALL = {**KEYS, "schedule": "linear", "lr_min": 0.001, "optimizer": "adamw"}


def recipe(**changes: Any) -> Recipe:
    settings = {**TOY.recipe.model_dump(), "epochs": EPOCHS, "lr_steps": [], "weight_decay": 0.01}
    return Recipe.model_validate(settings | changes)


def new_state(settings: Recipe, network: str = "teacher") -> TrainingState:
    architecture = architecture_of(TOY.networks[network], 10, 1)
    objective = CrossEntropy(label_smoothing=settings.label_smoothing or 0.0)
    return TrainingState(Row.parse("train/x"), architecture, objective, settings, 0, CPU, steps_per_epoch=STEPS)


def images_of(epoch: int, batch: int) -> torch.Tensor:
    return torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(10 * epoch + batch))


def train(state: TrainingState, until: int = EPOCHS * STEPS) -> TrainingState:
    """Up to a step of the training, from wherever it is."""
    while (state.epoch - 1) * STEPS + state.batch < until:
        state.step(images_of(state.epoch, state.batch), LABELS, None)
        state.check()
        if state.batch == STEPS:
            state.finish_epoch({"loss": 0.0, "top1": 0.0, "top5": 0.0})
    return state


def tensors(network: torch.nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in network.state_dict().values()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def resumed(state: TrainingState) -> TrainingState:
    buffer = io.BytesIO()
    torch.save(state.checkpoint(), buffer)
    fresh = new_state(state.recipe)
    fresh.load_checkpoint(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    return fresh


@pytest.fixture(scope="module")
def usual() -> list[torch.Tensor]:
    return tensors(train(new_state(recipe())).result)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_changes_the_bytes(key: str, usual: list[torch.Tensor]) -> None:
    assert not equal(tensors(train(new_state(recipe(**{key: KEYS[key]}))).result), usual)


@pytest.mark.parametrize(
    "unchanged",
    [
        {"schedule": "steps"},
        {"warmup_epochs": 0},
        {"optimizer": "sgd"},
        {"norm_weight_decay": 0.01},
        {"clip_grad_norm": 1e6},
        {"label_smoothing": 0.0},
        {"ema_decay": 0.0},
        {"zero_init_residual": False},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_a_value_that_says_what_is_usual_leaves_the_bytes(unchanged: dict[str, Any], usual: list[torch.Tensor]) -> None:
    assert equal(tensors(train(new_state(recipe(**unchanged))).result), usual)


@pytest.mark.parametrize(
    "settings", [{"schedule": "cosine", "optimizer": "nesterov"}, ALL], ids=["cosine, nesterov", "all"]
)
def test_a_training_resumes_exactly_from_any_step(settings: dict[str, Any]) -> None:
    whole = train(new_state(recipe(**settings)))
    stopped = new_state(recipe(**settings))
    for step in range(1, EPOCHS * STEPS):
        stopped = resumed(train(stopped, step))
    train(stopped)
    assert equal(tensors(stopped.network), tensors(whole.network))
    assert equal(tensors(stopped.result), tensors(whole.result))
    assert stopped.history == whole.history


@pytest.mark.parametrize("settings", [{}, ALL], ids=["usual", "all"])
def test_a_checkpoint_has_its_full_size_from_the_start(settings: dict[str, Any]) -> None:
    """Because room for it is looked for before training."""
    state = new_state(recipe(**settings))

    def size() -> int:
        return sum(tensor.nbytes for tensor in state.tensors())

    before = size()
    train(state)
    assert size() == before


def by_pytorch(make: Callable[[torch.nn.Module], torch.optim.Optimizer], clip: float | None = None) -> torch.nn.Module:
    """The network after the same steps in a loop as PyTorch's tutorials have it."""
    network = copy.deepcopy(new_state(recipe()).network)
    optimizer = make(network)
    for epoch in range(1, EPOCHS + 1):
        for batch in range(STEPS):
            optimizer.zero_grad()
            cross_entropy(network(images_of(epoch, batch)), LABELS).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
    return network


def sgd(network: torch.nn.Module, **settings: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), 0.05, **{"momentum": 0.9, "weight_decay": 0.01, **settings})


def with_norms_apart(network: torch.nn.Module) -> torch.optim.Optimizer:
    norms, others = split_normalization_params(network)
    groups = [{"params": norms, "weight_decay": 0.5}, {"params": others, "weight_decay": 0.01}]
    return torch.optim.SGD(groups, 0.05, momentum=0.9)


@pytest.mark.parametrize(
    ("settings", "make", "clip"),
    [
        ({"optimizer": "nesterov"}, lambda network: sgd(network, nesterov=True), None),
        (
            {"optimizer": "adamw", "lr": 0.001, "momentum": 0.8},
            lambda network: torch.optim.AdamW(network.parameters(), 0.001, (0.8, 0.999), weight_decay=0.01),
            None,
        ),
        ({"norm_weight_decay": 0.5}, with_norms_apart, None),
        ({"clip_grad_norm": 0.3}, sgd, 0.3),
    ],
    ids=["nesterov", "adamw", "norm_weight_decay", "clip_grad_norm"],
)
def test_steps_are_those_of_pytorch(settings: dict[str, Any], make: Any, clip: float | None) -> None:
    ours = train(new_state(recipe(**settings))).network
    for name, tensor in by_pytorch(make, clip).state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=2e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2", "convnext_tiny", "vgg11_bn", "densenet121", "wrn-10-1"])
def test_parameters_of_normalisation_layers_are_those_of_torchvision(arch: str) -> None:
    network = build_network(architecture_of(Network(arch=arch), 10, 3))
    norms, others = split_normalization_params(network)
    assert {id(parameter) for parameter in norm_parameters(network)} == {id(parameter) for parameter in norms}
    assert len(norms) > 0
    assert len(norms) + len(others) == len(list(network.parameters()))


@pytest.mark.parametrize("make", [resnet18, resnet50])
def test_zero_initialised_residual_blocks_are_those_of_torchvision(make: Callable[..., torch.nn.Module]) -> None:
    torch.manual_seed(0)
    theirs = make(num_classes=10, zero_init_residual=True)
    torch.manual_seed(0)
    ours = make(num_classes=10)
    zero_residual_norms(ours)
    assert equal(tensors(ours), tensors(theirs))


@pytest.mark.parametrize(("arch", "conv", "channels"), [("resnet18", "G(N)", 64), ("resnet50", "BG(2,4)", 256)])
def test_blocks_with_cheap_convolutions_begin_as_the_identity(arch: str, conv: str, channels: int) -> None:
    network = initialise(architecture_of(Network(arch=arch, conv=conv), 10, 3), 0).eval()
    zero_residual_norms(network)
    features = torch.rand(1, channels, 8, 8)
    assert torch.equal(network.get_submodule("layer1.1")(features), features)


def test_an_average_is_what_is_published_and_begins_early() -> None:
    """By hand from the weights after each step, with a decay that is limited by (1 + t) / (10 + t)."""
    state = new_state(recipe(ema_decay=0.15))
    expected = [tensor.double() for tensor in state.network.parameters()]
    for step, decay in enumerate([0.1, 0.15, 0.15, 0.15]):
        train(state, step + 1)
        live = [tensor.detach().double() for tensor in state.network.parameters()]
        expected = [decay * average + (1 - decay) * now for average, now in zip(expected, live)]
    for average, ours in zip(expected, state.result.parameters()):
        torch.testing.assert_close(ours.double(), average, rtol=1e-4, atol=1e-6)
    assert equal(tensors(state.network), tensors(train(new_state(recipe()), 4).network)), "training itself is as usual"


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adamw"])
def test_nothing_is_updated_after_a_step_that_is_not_finite(optimizer: str) -> None:
    state = train(new_state(recipe(optimizer=optimizer, clip_grad_norm=0.1)), 2)
    before = [parameter.detach().clone() for parameter in state.network.parameters()]
    state.step(images_of(1, 2) * math.nan, LABELS, None)
    state.step(images_of(1, 3), LABELS, None)
    assert equal(before, list(state.network.parameters()))


@pytest.mark.parametrize("clip", [None, 0.01])
def test_float16_clips_gradients_that_are_not_scaled(clip: float | None) -> None:
    """Without momentum and decay, a step is the learning rate times the gradient."""
    state = new_state(recipe(precision="float16", momentum=0.0, weight_decay=0.0, lr=0.5, clip_grad_norm=clip))
    names, lengths = dict(state.network.named_parameters()), []
    for batch in range(20):  # of which the first overflow
        before = tensors(state.network)
        state.step(images_of(1, batch), LABELS, None)
        changes = [now - then for (name, now), then in zip(state.network.state_dict().items(), before) if name in names]
        lengths.append(float(torch.nn.utils.get_total_norm(changes)))
    assert max(lengths) > 0.1 if clip is None else 0 < max(lengths) < 0.5 * 0.01 * 1.01


def test_the_learning_rate_of_an_epoch_is_that_of_its_last_step() -> None:
    history = train(new_state(recipe(schedule="linear", lr=0.6))).history
    assert [epoch["lr"] for epoch in history] == pytest.approx([0.4, 0.1])


@pytest.mark.slow
def test_a_learning_rate_that_changes_at_every_step_compiles_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, example: list[Any]) -> Any:
        graphs.append(graph)
        return graph

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **options: compile_(network, **options, backend=backend))
    torch.compiler.reset()
    train(new_state(recipe(**ALL, compile=True)))
    torch.compiler.reset()
    assert len(graphs) == 1


def test_the_labels_of_a_student_are_smoothed_and_its_teacher_is_not() -> None:
    logits = torch.linspace(-2, 2, 30).sin().view(3, 10)
    teacher = TeacherOutputs(logits.flip(0), [])
    found = []
    for smoothing in (0.0, 0.1):
        objective = Distillation((), label_smoothing=smoothing, alpha=0.4, temperature=2.0)
        objective.attach(torch.nn.Identity())
        found.append(objective(logits, torch.arange(3), teacher, 1)[1])
    assert found[0][1] == found[1][1]
    assert found[1][0] == cross_entropy(logits, torch.arange(3), label_smoothing=0.1) != found[0][0]
