"""The recipe of a row is the experiment's, changed by its network and then by its method, and checked as a whole."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import write_params
from moonshine.checks.networks import check_batch_norms
from moonshine.errors import ParamsError
from moonshine.params import Params, read_params
from moonshine.project.rows import Row
from tests.support.project import run_moonshine, toy_params


def with_own(
    teacher: dict[str, Any] | None = None,
    student: dict[str, Any] | None = None,
    method: dict[str, Any] | None = None,
    **recipe: Any,
) -> dict[str, Any]:
    """The toy params with own recipes, and other values in the experiment's."""
    params = toy_params()
    params["networks"]["teacher"] = {**params["networks"]["teacher"], "recipe": teacher}
    params["networks"]["student"]["recipe"] = student
    params["methods"]["at"]["recipe"] = method
    params["recipe"].update(recipe)
    return params


def read(folder: Path, params: dict[str, Any]) -> Params:
    write_params(folder, params)
    return read_params(folder / "params.yaml")


def test_the_method_wins_over_the_network_and_both_over_the_experiment(tmp_path: Path) -> None:
    own = {"lr": 0.02, "augmentation": {"flip": True}}
    params = read(tmp_path, with_own(student={**own, "momentum": 0.5}, method={"momentum": 0.8, "images": 300}))
    usual = params.recipe
    assert params.recipe_of(Row.parse("train/teacher")) == usual
    of_network, distilled = (params.recipe_of(Row.parse(name)) for name in ("train/student", "distil/at/student"))
    assert (of_network.lr, of_network.momentum, of_network.images) == (0.02, 0.5, None)
    assert (distilled.lr, distilled.momentum, distilled.images) == (0.02, 0.8, 300)
    assert (usual.augmentation.pad, of_network.augmentation.pad, of_network.augmentation.flip) == (1, None, True)
    assert of_network.weight_decay == distilled.weight_decay == usual.weight_decay


def test_the_place_of_a_value_is_named(tmp_path: Path) -> None:
    params = read(tmp_path, with_own(student={"lr": 0.02, "momentum": 0.5}, method={"momentum": 0.8}))
    row = Row.parse("distil/at/student")
    assert [params.recipe_key(row, key) for key in ("lr", "momentum", "epochs")] == [
        "networks.student.recipe.lr",
        "methods.at.recipe.momentum",
        "recipe.epochs",
    ]


def test_a_recipe_that_is_null_or_empty_changes_nothing(tmp_path: Path) -> None:
    params = read(tmp_path, with_own(teacher={}, student={"epochs": None}))
    assert {row.name: params.recipe_of(row) for row in params.rows} == {
        "train/teacher": params.recipe,
        "distil/at/student": params.recipe,
    }


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "steps of the experiment that do not fit": (
        with_own(teacher={"epochs": 1}),
        "networks.teacher.recipe.epochs: recipe.lr_steps: 1 is not before the last of 1 epochs; "
        "set networks.teacher.recipe.lr_steps too",
    ),
    "steps of the network that do not fit the method's epochs": (
        with_own(student={"epochs": 9, "lr_steps": [5]}, method={"epochs": 4}),
        "methods.at.recipe.epochs: networks.student.recipe.lr_steps: 5 is not before the last of 4 epochs; "
        "set methods.at.recipe.lr_steps too",
    ),
    "steps after the end": (
        with_own(student={"lr_steps": [2]}),
        "networks.student.recipe.lr_steps: 2 is not before the last of 2 epochs of distil/at/student",
    ),
    "steps that fall": (with_own(teacher={"lr_steps": [1, 1]}), "networks.teacher.recipe.lr_steps: must ascend"),
    "a batch for more processes": (
        with_own(student={"batch_size": 2}, processes=4),
        "networks.student.recipe.batch_size: recipe.processes: 4 cannot share a batch of 2",
    ),
    "augmentation of JPEG images": (
        with_own(method={"augmentation": {"flip": True, "crop_scale": [0.1, 1.0]}}),
        "methods.at.recipe.augmentation.crop_scale: for JPEG images, not for digits",
    ),
    "fewer images than classes": (with_own(method={"images": 9}), "methods.at.recipe.images: 9 images, but 10 classes"),
    "fewer images than classes for all": (with_own(images=9), "recipe.images: 9 images, but 10 classes"),
    "no images": (with_own(teacher={"images": 0}), "networks.teacher.recipe.images: must be at least 1, found 0"),
    "threads of a network": (
        with_own(teacher={"threads": 2}),
        "networks.teacher.recipe: threads: must be the same for all rows, because engines reserve it; "
        "set recipe.threads",
    ),
    "processes of a method": (with_own(method={"processes": 2}), "methods.at.recipe: processes: must be the same"),
    "unknown key": (
        with_own(teacher={"epohcs": 2}),
        'networks.teacher.recipe.epohcs: unknown key (did you mean "epochs"?)',
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_recipe_that_does_not_fit_together_is_refused_by_its_key(mistake: str, tmp_path: Path) -> None:
    params, line = MISTAKES[mistake]
    with pytest.raises(ParamsError) as error:
        read(tmp_path, params)
    assert line in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_epochs_of_attention_transfer_are_those_of_its_rows(tmp_path: Path) -> None:
    params = with_own(student={"epochs": 5})
    params["methods"]["at"]["last_epoch"] = 5
    read(tmp_path, params)
    params["methods"]["at"]["last_epoch"] = 6
    with pytest.raises(ParamsError, match=r"at\.last_epoch: 6 is after the last of 5 epochs of distil/at/student$"):
        read(tmp_path, params)


def test_networks_and_methods_without_a_row_are_checked_too(tmp_path: Path) -> None:
    params = with_own()
    params["networks"]["spare"] = {"arch": "resnet18", "recipe": {"epochs": 1}}
    params["methods"]["spare"] = {"alpha": 0.9, "temperature": 4.0, "recipe": {"lr_steps": [7]}}
    with pytest.raises(ParamsError) as error:
        read(tmp_path, params)
    assert "networks.spare.recipe.epochs: recipe.lr_steps: 1 is not before" in str(error.value)
    assert "methods.spare.recipe.lr_steps: 7 is not before the last of 2 epochs" in str(error.value)


def test_a_batch_of_one_image_is_refused_by_the_place_of_its_size(tmp_path: Path) -> None:
    written = with_own(student={"batch_size": 1})
    written["networks"]["student"]["stem"] = None  # so that its last maps are of one pixel
    params = read(tmp_path, written)
    with pytest.raises(ParamsError, match=r"^networks\.student\.recipe\.batch_size: 1, too few for the batch norm"):
        check_batch_norms(params)


def test_a_recipe_that_no_training_uses_is_warned_of(tmp_path: Path) -> None:
    params = with_own()
    params["networks"]["published"] = {**params["networks"]["teacher"], "recipe": {"epochs": 5}}
    params["fetch"] = {"published": {"url": "https://example.org/x.pth", "sha256": 64 * "0"}}
    write_params(tmp_path, params)
    result = run_moonshine("check", cwd=tmp_path)
    assert "networks.published.recipe: has no effect, because published is only fetched" in result.stderr
