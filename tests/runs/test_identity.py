"""A run is told apart by all that determines its bytes, and by nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import ROOT, environment
from moonshine.errors import DataError
from moonshine.params import Params
from moonshine.project import artefacts, graph
from moonshine.runs import identity
from moonshine.runs.identity import identity_hash, identity_in_params, run_identity
from moonshine.runtime.differences import differences
from tests.support.small_runs import DISTIL, TRAIN, changed_params, write_inputs


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Of the working directory, which has all that identities are made from."""
    monkeypatch.chdir(tmp_path)
    return write_inputs()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, of which identities take the code."""
    folder = tmp_path / "moonshine"
    shutil.copytree(ROOT / "moonshine", folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(graph, "PACKAGE", folder)
    monkeypatch.setattr(identity, "PACKAGE", folder)
    return folder


def changed(row: str, path: str, value: Any, params: Params) -> list[str]:
    """How a run's identity differs with another value in params.yaml."""
    return differences(run_identity(params, row, 0), run_identity(changed_params(path, value), row, 0))


def test_it_names_all_that_a_training_is_made_from(params: Params) -> None:
    common = {"recipe", "network", "seed", "data", "code", "torch", "torchvision"}
    assert run_identity(params, TRAIN, 0).keys() == common
    assert run_identity(params, DISTIL, 0).keys() == {*common, "method", "teacher"}


@pytest.mark.parametrize(
    ("row", "path", "value", "lines"),
    [
        (TRAIN, "recipe.lr", 0.04, ["recipe.lr: 0.05 -> 0.04"]),
        (TRAIN, "recipe.processes", 2, ["recipe.processes: None -> 2"]),
        (DISTIL, "methods.at.beta", 20.0, ["method.beta: 30.0 -> 20.0"]),
    ],
)
def test_params_that_a_training_goes_by_are_in_it(
    row: str, path: str, value: Any, lines: list[str], params: Params
) -> None:
    assert changed(row, path, value, params) == lines


def test_the_network_is_in_it(params: Params) -> None:
    assert any("network" in line for line in changed(DISTIL, "networks.student.conv", "G(2)", params))


@pytest.mark.parametrize(
    ("row", "path", "value"),
    [
        (TRAIN, "machine.checkpoint_seconds", 7.0),
        (TRAIN, "titles", {TRAIN.name: "The teacher"}),
        (TRAIN, "networks.student.conv", "G(2)"),
        (TRAIN, "methods.at.beta", 20.0),
        (TRAIN, "seeds", [0, 1]),
    ],
)
def test_nothing_else_of_params_is_in_it(row: str, path: str, value: Any, params: Params) -> None:
    assert changed(row, path, value, params) == []


def test_the_seed_is_in_it(params: Params) -> None:
    assert differences(run_identity(params, TRAIN, 0), run_identity(params, TRAIN, 1)) == ["seed: 0 -> 1"]


def test_the_data_are_in_it(params: Params) -> None:
    before = run_identity(params, TRAIN, 0)
    artefacts.manifest("digits").unlink()
    shutil.rmtree("models")
    write_inputs(splits={"train": {"count": 8, "sha256": 64 * "3"}})
    assert differences(before, run_identity(params, TRAIN, 0)) == ["data: changed"]


def test_the_teacher_is_in_what_is_distilled_and_in_nothing_else(params: Params) -> None:
    rows = (TRAIN, DISTIL)
    before = [run_identity(params, row, 0) for row in rows]
    artefacts.named_model("toy", params.teacher).write_bytes(b"another teacher")
    assert [differences(old, run_identity(params, row, 0)) for row, old in zip(rows, before)] == [
        [],
        ["teacher: changed"],
    ]


def test_a_missing_teacher_is_named(params: Params) -> None:
    path = artefacts.named_model("toy", params.teacher)
    path.unlink()
    with pytest.raises(DataError, match=f"^{path}: no teacher there"):
        run_identity(params, DISTIL, 0)


@pytest.mark.parametrize(
    ("module", "of_train", "of_distil"),
    [
        ("training/loop.py", True, True),
        ("stages/train.py", True, False),
        ("distillation/objective.py", False, True),
        ("report/tables.py", False, False),
        ("runtime/files.py", False, False),
    ],
)
def test_of_the_code_what_the_stage_declares_is_in_it(
    module: str, of_train: bool, of_distil: bool, params: Params, package: Path
) -> None:
    before = [run_identity(params, row, 0) for row in (TRAIN, DISTIL)]
    with (package / module).open("a") as file:
        file.write("# edited\n")
    (package / module).with_name(".#edited.py").write_text("of an editor\n")
    lines = [differences(old, run_identity(params, row, 0)) for row, old in zip((TRAIN, DISTIL), before)]
    line = [f"code.{module}: changed"]
    assert lines == [line if of_train else [], line if of_distil else []]


def test_a_module_that_is_added_to_a_folder_of_the_stage_is_in_it(params: Params, package: Path) -> None:
    before = run_identity(params, TRAIN, 0)
    (package / "training" / "new.py").touch()
    assert differences(before, run_identity(params, TRAIN, 0)) == ["code.training/new.py: changed"]


def test_of_jpeg_images_what_decodes_and_crops_them_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = run_identity(write_inputs(encoding="jpeg", shape=[3, 24, 24]), TRAIN, 0)
    assert {"pillow", "jpeg", "numpy"} <= found.keys()
    assert all(found[name] for name in ("pillow", "jpeg", "numpy"))


def test_augmentation_that_is_left_out_is_not_in_it(params: Params) -> None:
    """So that runs from before these keys keep their identity."""
    found = run_identity(params, TRAIN, 0)["recipe"]["augmentation"]
    assert found == {"pad": 1, "flip": False, "crop_scale": None}
    values = {"crop_size": 8, "trivial_augment": True, "cutout": 4, "random_erasing": 0.5, "mixup": 0.2, "cutmix": 1.0}
    for key, value in values.items():
        given = params.recipe.augmentation.model_copy(update={key: value})
        assert given.model_dump() == {**found, key: value}


def test_trivial_augment_depends_on_pillow(params: Params) -> None:
    lines = changed(TRAIN, "recipe.augmentation.trivial_augment", True, params)
    assert "recipe.augmentation.trivial_augment: None -> True" in lines
    assert any(line.startswith("pillow: ") for line in lines)
    lines = changed(TRAIN, "recipe.augmentation.mixup", 0.2, params)
    assert lines == ["recipe.augmentation.mixup: None -> 0.2"]


def test_what_params_alone_determine_is_a_part_of_it(params: Params) -> None:
    """By which the engines tell what was made with other params."""
    part = identity_in_params(params, DISTIL, 10, 1)
    assert part.keys() == {"recipe", "network", "method"}
    assert part.items() <= run_identity(params, DISTIL, 0).items()


def test_own_recipes_are_in_it_as_the_recipe_of_the_row(params: Params) -> None:
    own = {"epochs": 5, "lr": 0.02}
    assert changed(DISTIL, "networks.student.recipe", own, params) == [
        "recipe.epochs: 2 -> 5",
        "recipe.lr: 0.05 -> 0.02",
    ]
    assert changed(DISTIL, "methods.at.recipe", {"images": 300}, params) == ["recipe.images: None -> 300"]
    assert changed(TRAIN, "networks.student.recipe", own, params) == []
    assert changed(TRAIN, "methods.at.recipe", own, params) == []


@pytest.mark.parametrize("own", [None, {}, {"lr": 0.05}, {"images": None}])
def test_an_own_recipe_that_changes_nothing_leaves_it_as_it_was(own: Any, params: Params) -> None:
    """So a model from before there were own recipes is not outdated, and its run keeps its folder."""
    usual = run_identity(params, DISTIL, 0)
    assert "images" not in usual["recipe"]
    assert not {"recipe", "images"} & (usual["network"].keys() | usual["method"].keys())
    for place in ("networks.student.recipe", "methods.at.recipe"):
        assert run_identity(changed_params(place, own), DISTIL, 0) == usual


def test_its_hash_is_a_folders_name_whatever_the_order_of_its_parts(params: Params) -> None:
    made = run_identity(params, TRAIN, 0)
    name = identity_hash(made)
    assert len(name) == 16
    assert set(name) <= set("0123456789abcdef")
    assert identity_hash(dict(reversed(made.items()))) == name
    assert identity_hash({**made, "seed": 1}) != name


def test_it_is_found_without_torch() -> None:
    """Status and the engines ask for it, which should take no seconds."""
    program = "import sys, moonshine.runs.identity; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment()).returncode == 0
