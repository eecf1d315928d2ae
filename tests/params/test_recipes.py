"""Keys of a recipe that may be left out: which values fit together, and which line refuses the others."""

from pathlib import Path
from typing import Any

import pytest

from moonshine.checks.networks import check_networks
from moonshine.errors import ParamsError
from moonshine.params import read_params
from tests.params.test_own_recipes import read, with_own
from tests.support.project import toy_params

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "steps of another schedule": (
        with_own(schedule="cosine"),
        "recipe: lr_steps: must be [] with the cosine schedule",
    ),
    "an own schedule with the experiment's steps": (
        with_own(student={"schedule": "linear"}),
        "networks.student.recipe.schedule: recipe.lr_steps: must be [] with the linear schedule; "
        "set networks.student.recipe.lr_steps too",
    ),
    "own steps with the experiment's schedule": (
        with_own(student={"lr_steps": [1]}, schedule="cosine", lr_steps=[]),
        "networks.student.recipe.lr_steps: must be [] with the cosine schedule of distil/at/student",
    ),
    "unknown schedule": (
        with_own(schedule="step"),
        "recipe.schedule: must be one of steps, cosine, linear, found 'step'",
    ),
    "a warm-up as long as training": (
        with_own(warmup_epochs=2, lr_steps=[]),
        "recipe: warmup_epochs: 2 is not less than the 2 epochs",
    ),
    "a short training with the experiment's warm-up": (
        with_own(method={"epochs": 3}, schedule="cosine", lr_steps=[], warmup_epochs=5, epochs=20),
        "methods.at.recipe.epochs: recipe.warmup_epochs: 5 is not less than the 3 epochs; "
        "set methods.at.recipe.warmup_epochs too",
    ),
    "a negative warm-up": (with_own(warmup_epochs=-1), "recipe.warmup_epochs: must be at least 0, found -1"),
    "steps in the warm-up": (
        with_own(warmup_epochs=1),
        "recipe: lr_steps: 1 is not after the 1 warm-up epochs",
    ),
    "a lowest learning rate of steps": (with_own(lr_min=0.01), "recipe: lr_min: has no effect on the steps schedule"),
    "a lowest learning rate above the first": (
        with_own(student={"lr": 0.001}, schedule="cosine", lr_steps=[], lr_min=0.01),
        "networks.student.recipe.lr: recipe.lr_min: 0.01 is more than the learning rate 0.001; "
        "set networks.student.recipe.lr_min too",
    ),
    "unknown optimiser": (
        with_own(optimizer="adam"),
        "recipe.optimizer: must be one of sgd, nesterov, adamw, found 'adam'",
    ),
    "Nesterov without momentum": (
        with_own(teacher={"momentum": 0.0}, optimizer="nesterov"),
        "networks.teacher.recipe.momentum: must be more than 0 for the nesterov optimizer of train/teacher",
    ),
    "a negative decay of norms": (with_own(norm_weight_decay=-1e-4), "recipe.norm_weight_decay: must be at least 0"),
    "gradients of no length": (with_own(clip_grad_norm=0.0), "recipe.clip_grad_norm: must be above 0, found 0.0"),
    "labels that are all smooth": (with_own(label_smoothing=1.0), "recipe.label_smoothing: must be below 1, found 1.0"),
    "an average that never moves": (with_own(ema_decay=1.0), "recipe.ema_decay: must be below 1, found 1.0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_fit_is_refused_by_its_key(mistake: str, tmp_path: Path) -> None:
    params, line = MISTAKES[mistake]
    with pytest.raises(ParamsError) as error:
        read(tmp_path, params)
    assert line in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_row_with_fewer_epochs_needs_no_steps_of_its_own_with_a_cosine(tmp_path: Path) -> None:
    params = read(tmp_path, with_own(student={"epochs": 5}, schedule="cosine", lr_steps=[], epochs=20))
    assert [params.recipe_of(row).epochs for row in params.seeded_rows] == [20, 5]


@pytest.mark.parametrize("key", ["ema_decay", "label_smoothing", "warmup_epochs", "lr_min"])
def test_a_row_may_do_without_a_key_of_the_experiment(key: str, tmp_path: Path) -> None:
    value = {"warmup_epochs": 1}.get(key, 0.01)
    params = read(tmp_path, with_own(student={key: 0}, schedule="cosine", lr_steps=[], **{key: value}))
    assert [getattr(params.recipe_of(row), key) for row in params.seeded_rows] == [value, 0]


def zero_init(**student: Any) -> dict[str, Any]:
    params = with_own(zero_init_residual=True)
    params["networks"]["student"] = {**params["networks"]["student"], **student}
    return params


def test_only_residual_blocks_of_torchvision_begin_as_the_identity(tmp_path: Path) -> None:
    params = with_own(zero_init_residual=True)
    params["networks"] = {
        "teacher": {"arch": "wrn-10-1", "recipe": {"zero_init_residual": False}},
        "student": {"arch": "wrn-10-1"},
    }
    params["methods"]["at"]["groups"] = [1, 2, 3]
    for own, line in (
        (None, "recipe.zero_init_residual: {}; set networks.student.recipe.zero_init_residual: false"),
        ({"zero_init_residual": True}, "networks.student.recipe.zero_init_residual: {}; leave it out"),
    ):
        params["networks"]["student"]["recipe"] = own
        with pytest.raises(ParamsError) as error:
            read(tmp_path, params)
        why = "only valid for torchvision's ResNets, not for wrn-10-1 of distil/at/student"
        assert str(error.value).partition(": ")[2] == line.format(why)
    params["networks"]["student"]["recipe"] = {"zero_init_residual": False}
    read(tmp_path, params)


def test_a_network_that_is_only_fetched_may_have_any_blocks(tmp_path: Path) -> None:
    params = zero_init()
    params["networks"]["published"] = {"arch": "vgg11"}
    params["fetch"] = {"published": {"url": "https://example.org/x.pth", "sha256": 64 * "0"}}
    read(tmp_path, params)


def test_weights_that_begin_elsewhere_are_not_initialised(tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as error:
        read(tmp_path, zero_init(init={"url": "x.pth", "sha256": 64 * "0"}))
    assert "recipe.zero_init_residual: has no effect on distil/at/student, whose weights begin as " in str(error.value)


def test_a_decay_of_norms_needs_norms(tmp_path: Path) -> None:
    params = toy_params()
    params["dataset"]["size"] = 64
    params["networks"]["plain"] = {"arch": "alexnet", "recipe": {"norm_weight_decay": 0.0}}
    params["train"].append("plain")
    with pytest.raises(ParamsError) as error:
        check_networks(read(tmp_path, params))
    assert str(error.value) == (
        "networks.plain: networks.plain.recipe.norm_weight_decay: alexnet has no normalisation layers, "
        "so it has no effect"
    )
    params["recipe"]["norm_weight_decay"] = params["networks"]["plain"]["recipe"].pop("norm_weight_decay")
    params["networks"]["plain"]["recipe"] = None
    with pytest.raises(ParamsError, match=r"^networks\.plain: recipe\.norm_weight_decay: alexnet has no"):
        check_networks(read(tmp_path, params))


def test_keys_that_are_left_out_stay_out(tmp_path: Path) -> None:
    """As far as the schema goes; tests/training/test_recipe_runs.py looks at identities."""
    recipe = read(tmp_path, toy_params()).recipe
    assert [key for key, value in recipe if value is not None] == list(toy_params()["recipe"])
    assert read_params(tmp_path / "params.yaml").own_recipes == {}
