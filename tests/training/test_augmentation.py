"""Each key of recipe.augmentation changes the networks, in a training that may stop, resume and have company."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.separate_project import write_params
from moonshine.data.labels import MixedLabels
from moonshine.data.loading import SmallImages
from moonshine.models.architecture import architecture_of
from moonshine.params import Params, Recipe
from moonshine.params.schema import Augmentation
from moonshine.project.rows import Row
from moonshine.runtime.files import sha256
from moonshine.training.loop import TrainingLoop
from moonshine.training.objective import CrossEntropy
from moonshine.training.state import TrainingState
from tests.support.project import run_moonshine, start_until_paused, toy_params

CPU = torch.device("cpu")
TOY = Params.model_validate(toy_params())
EVERY = {"trivial_augment": True, "cutout": 3, "random_erasing": 0.5, "mixup": 0.4, "cutmix": 1.0}


def with_every_key() -> dict[str, Any]:
    """Two students, with all of the augmentation."""
    params = toy_params()
    params["networks"]["half"] = {**params["networks"]["teacher"], "channels": [4, 4, 4, 8]}
    params["distil"]["networks"] = ["student", "half"]
    params["methods"]["at"] |= {"alpha": 0.5, "temperature": 4.0}
    params["recipe"]["augmentation"] |= EVERY
    params["recipe"] |= {"batch_size": 300, "class_weights": "balanced"}
    params["machine"] = {"checkpoint_steps": 1}
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("augmented")
    write_params(folder, with_every_key())
    run_moonshine("prepare", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def digits(project: Path) -> SmallImages:
    return SmallImages(project / "data/digits", "train", CPU)


def new_state(recipe: Recipe) -> TrainingState:
    architecture = architecture_of(TOY.networks["teacher"], 10, 1)
    return TrainingState(Row.parse("train/teacher"), architecture, CrossEntropy(), recipe, 0, CPU)


def weights_after_two_steps(digits: SmallImages, **keys: Any) -> torch.Tensor:
    augmentation = Augmentation.model_validate({**TOY.recipe.augmentation.model_dump(), **keys})
    state = new_state(TOY.recipe.model_copy(update={"augmentation": augmentation}))
    batches = digits.training_batches(augmentation, 0, 1, 64)
    for _ in range(2):
        state.step(*next(batches), None)
    return torch.cat([parameter.detach().flatten() for parameter in state.network.parameters()])


def test_each_key_changes_the_network_and_null_changes_nothing(digits: SmallImages) -> None:
    plain = weights_after_two_steps(digits)
    assert torch.equal(weights_after_two_steps(digits, **dict.fromkeys(EVERY)), plain)
    assert torch.equal(weights_after_two_steps(digits, trivial_augment=False), plain)
    trained = [plain, *(weights_after_two_steps(digits, **{key: value}) for key, value in EVERY.items())]
    trained += [weights_after_two_steps(digits, mixup=0.5), weights_after_two_steps(digits, **EVERY)]
    for number, weights in enumerate(trained):
        assert not any(torch.equal(weights, other) for other in trained[:number])


def test_teacher_and_student_see_the_same_mixed_images(digits: SmallImages, project: Path, tmp_path: Path) -> None:
    val = SmallImages(project / "data/digits", "val", CPU)
    recipe = with_every_key()["recipe"] | {"epochs": 1, "lr_steps": []}
    state = new_state(Recipe.model_validate(recipe))
    seen: list[torch.Tensor] = []
    state.network.register_forward_pre_hook(
        lambda network, images: seen.append(images[0]) if network.training else None
    )
    taught: list[tuple[torch.Tensor, Any]] = []
    usual = state.objective

    class Objective:
        parts = usual.parts

        def __call__(self, logits: torch.Tensor, labels: Any, teacher: Any, epoch: int) -> Any:
            taught.append((teacher, labels))
            return usual(logits, labels, None, epoch)

    state.objective = Objective()  # type: ignore[assignment]
    run: Any = SimpleNamespace(path=tmp_path)
    loop = TrainingLoop({state: run}, torch.clone, digits, val, state.recipe, 0, 1e9, None)
    assert loop.run() == []
    assert len(seen) == len(taught) == 4
    for images, (of_teacher, labels) in zip(seen, taught):
        assert torch.equal(images, of_teacher)
        assert isinstance(labels, MixedLabels)
    assert 0 <= state.history[0]["train_top1"] <= 100


def finished(folder: Path) -> dict[str, str]:
    """Student -> sha256 of what its run left in runs/."""
    return {path.parts[-4]: sha256(path) for path in folder.glob("runs/toy/distil/at/*/seed0/*/final.safetensors")}


@pytest.mark.slow
def test_resumed_from_any_step_and_together_or_alone_the_bytes_are_the_same(project: Path, tmp_path: Path) -> None:
    run_moonshine("train", "teacher", "--seed", "0", cwd=project)
    together, alone, killed = (shutil.copytree(project, tmp_path / name) for name in ("together", "alone", "killed"))
    run_moonshine("distil", "--together", "--seed", "0", cwd=together)
    for student in ("student", "half"):
        run_moonshine("distil", f"at/{student}", "--seed", "0", cwd=alone)
    command = (sys.executable, "-m", "moonshine", "distil", "--together", "--seed", "0")
    for step in (1, 2, 5):
        process = start_until_paused(*command, cwd=killed, PAUSE_AFTER=str(step))
        process.kill()
        process.wait()
    assert not finished(killed)
    assert "resuming from epoch 2, batch 1" in run_moonshine("distil", "--together", "--seed", "0", cwd=killed).stderr
    assert finished(together) == finished(alone) == finished(killed)
    assert len(set(finished(together).values())) == 2
