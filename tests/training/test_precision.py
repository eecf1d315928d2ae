"""Mixed precision and torch.compile, as far as a CPU goes: what they change, and that attention stays float32."""

import importlib
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from moonshine.distillation import objective as objectives
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import TeacherOutputs
from moonshine.models.architecture import architecture_of
from moonshine.models.arithmetic import make_deterministic
from moonshine.models.networks import compile_network
from moonshine.params import Params
from moonshine.params.schema import Method
from moonshine.project.rows import Row
from moonshine.training.state import TrainingState
from tests.support.project import toy_params


@pytest.fixture
def dtypes(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """Of the attention maps whose distances are taken."""
    seen: set[torch.dtype] = set()
    original = objectives.attention_loss

    def spy(student: torch.Tensor, teacher: torch.Tensor, form: str) -> torch.Tensor:
        seen.update((student.dtype, teacher.dtype))
        return original(student, teacher, form)

    monkeypatch.setattr(objectives, "attention_loss", spy)
    return seen


def one_step(**recipe: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """(gradients, loss and its parts) of a student's first step; without weight decay momentum remembers gradients."""
    params = Params.model_validate(toy_params())
    settings = params.recipe.model_copy(update={"weight_decay": 0.0, **recipe})
    points = ("layer1", "layer2", "layer3", "layer4")
    architecture = architecture_of(params.networks["student"], 10, 1)
    objective = Distillation(points, **params.methods["at"].objective)
    state = TrainingState(Row.parse("distil/at/student"), architecture, objective, settings, 0, torch.device("cpu"))
    images = torch.randn(32, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    maps = [torch.nn.functional.normalize(images.abs().mean(1)[:, :side, :side], dim=(1, 2)) for side in (12, 6, 3, 2)]
    state.step(images, torch.arange(32) % 10, TeacherOutputs(images.new_zeros(0), maps))
    remembered = state.checkpoint()["optimizer"]["state"]
    named = enumerate(state.network.named_parameters())
    return {name: remembered[i]["momentum_buffer"] for i, (name, _) in named}, state.training_means()


def direction(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    flat = torch.cat([gradient.flatten() for gradient in gradients.values()])
    return flat / flat.norm()


@pytest.mark.parametrize(("precision", "rounding"), [("bfloat16", 0.08), ("float16", 0.03)])
def test_mixed_precision_rounds_and_keeps_attention_in_float32(
    precision: str, rounding: float, dtypes: set[torch.dtype]
) -> None:
    gradients, means = one_step(precision=precision)
    assert dtypes == {torch.float32}
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    exact, exact_means = one_step()
    assert not torch.equal(direction(gradients), direction(exact))
    for name, value in exact_means.items():
        if name != "train_top1":
            assert means[name] == pytest.approx(value, rel=rounding)
    if precision == "bfloat16":  # float16's first scale overflows, and the step is skipped
        # of the layer nearest to the loss: batch norms make rounding grow from layer to layer
        rounded, last = (direction({"fc.weight": found["fc.weight"]}) for found in (gradients, exact))
        assert float(rounded @ last) > 0.98


@pytest.mark.parametrize(("precision", "rounded"), [("float32", False), ("tf32", True)])
def test_only_tf32_lets_a_gpu_round_float32(precision: str, rounded: bool) -> None:
    """Said to PyTorch explicitly, whose default is neither; on a CPU both are the same."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        make_deterministic(torch.get_num_threads(), tf32=precision == "tf32")
        assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is rounded
        gradients, means = one_step(precision=precision)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    exact, exact_means = one_step(precision="float32")
    assert means == exact_means
    assert all(torch.equal(gradient, exact[name]) for name, gradient in gradients.items())


def test_for_a_gpu_the_compiler_does_not_choose_kernels_by_timing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    config = importlib.import_module("torch._inductor.config")
    monkeypatch.setattr(config, "deterministic", False)
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    network = torch.nn.Linear(1, 1)
    compile_network(network)
    assert not config.deterministic
    monkeypatch.setattr(network, "parameters", lambda: iter([SimpleNamespace(is_cuda=True)]))
    compile_network(network)
    assert config.deterministic


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_networks_compute_the_same(precision: str, dtypes: set[torch.dtype]) -> None:
    compiled, compiled_means = one_step(compile=True, precision=precision)
    assert dtypes == {torch.float32}
    eager, means = one_step(precision=precision)
    rounding = 1e-4 if precision == "float32" else 0.02
    if precision == "float32":
        assert float(direction(compiled) @ direction(eager)) > 1 - rounding
    for name in ("loss", "cross_entropy", "attention_1", "attention_4"):
        assert compiled_means[name] == pytest.approx(means[name], rel=rounding)


def test_compiled_networks_of_one_architecture_have_their_own_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one without attention lends its graph to one with, and from the ninth on none is compiled."""
    runs = []

    def backend(graph: torch.fx.GraphModule, example: list[Any]) -> Any:
        return lambda *arguments: (runs.append(graph), graph(*arguments))[1]

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    params = Params.model_validate(toy_params())
    recipe = params.recipe.model_copy(update={"compile": True})
    architecture = {"arch": "wrn-10-1", "classes": 10, "in_channels": 1}
    methods = [Method(alpha=0.5, temperature=4.0), *[Method(beta=1.0, groups=[1, 2, 3])] * 2]
    images, labels = torch.rand(4, 1, 12, 12), torch.arange(4)
    said = TeacherOutputs(torch.rand(4, 10), [torch.rand(4, side, side) for side in (12, 6, 3)])
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=2):
        for method in methods:
            objective = Distillation(("group1", "group2", "group3"), **method.objective)
            state = TrainingState(
                Row.parse("distil/at/student"), architecture, objective, recipe, 0, torch.device("cpu")
            )
            state.step(images, labels, said)
    torch.compiler.reset()
    assert len(runs) == len(set(runs)) == len(methods)
