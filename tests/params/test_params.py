"""A wrong params.yaml is refused before any work, in one line that names the key, the reason and the likely key."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import load_yaml

from benchmarks.separate_project import ROOT, write_params
from moonshine.checks.networks import check_batch_norms, check_networks
from moonshine.errors import ParamsError
from moonshine.params import Params, read_params
from moonshine.params.read import read_yaml
from tests.support.project import run_moonshine, toy_params


def complaint(folder: Path, params: dict[str, Any]) -> str:
    write_params(folder, params)
    with pytest.raises(ParamsError) as error:
        read_params(folder / "params.yaml")
    return str(error.value)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The toy params with the value at a dotted path replaced."""
    params = toy_params()
    *parents, last = path.split(".")
    section = params
    for parent in parents:
        section = section[parent]
    section[last] = value
    return params


JPEG_DATASET = {
    "name": "photographs",
    "source": "folder",
    "classes": 2,
    "channels": 3,
    "size": 24,
    "evaluation": {"resize": 28},
    "shared": [],
    "licensed": ["photographs"],
}
TABLE = toy_params()["tables"][0]

QUANTISE = {"images": 64, "per_tensor": False, "reduce_range": False}
MISTAKES = {
    "unknown key": ("recipe.epohcs", 3, 'recipe.epohcs: unknown key (did you mean "epochs"?)'),
    "unknown key at the top": ("sedes", [0], 'sedes: unknown key (did you mean "seeds"?)'),
    "unknown key in a network": (
        "networks.student.con",
        "S",
        'networks.student.con: unknown key (did you mean "conv"?)',
    ),
    "text for a number": ("recipe.lr", "0.1", "recipe.lr: must be a number, found '0.1'"),
    "truth for a number": ("recipe.epochs", True, "recipe.epochs: must be an integer, found true"),
    "number out of range": ("recipe.momentum", 1.0, "recipe.momentum: must be below 1, found 1.0"),
    "more than any tensor has": ("dataset.size", 10**400, "dataset.size: must be below 2,147,483,648"),
    "not finite": ("recipe.lr", float("inf"), "recipe.lr: must be a finite number, found inf"),
    "no seeds": ("seeds", [], "seeds: must have at least 1 value"),
    "no tables": ("tables", [], "tables: must have at least 1 value"),
    "a seed twice": ("seeds", [0, 0], "seeds: duplicate entry 0"),
    "row that names no network": (
        "train",
        ["teacher", "studnt"],
        'train: unknown network "studnt" (did you mean "student"?)',
    ),
    "method that is none": ("distil.methods", ["att"], 'distil.methods: unknown method "att" (did you mean "at"?)'),
    "a distilled model shown as one from scratch": (
        "attention_maps.scratch",
        "distil/at/student/seed0",
        "attention_maps.scratch: distil/at/student/seed0 learned from a teacher; name a model of train or fetch",
    ),
    "a model from scratch shown as a distilled one": (
        "attention_maps.distilled",
        "train/teacher/seed0",
        "attention_maps.distilled: train/teacher/seed0 learned from no teacher; name a model of distil",
    ),
    "teacher that no row produces": (
        "teacher",
        "train/teacher/seed1",
        'teacher: no row produces "train/teacher/seed1" (did you mean "train/teacher/seed0"?)',
    ),
    "attention maps of a seed that is not trained": (
        "attention_maps.distilled",
        "distil/at/student/seed3",
        'no row produces "distil/at/student/seed3" (did you mean "distil/at/student/seed0"?)',
    ),
    "unknown architecture": (
        "networks.student.arch",
        "resnet43",
        'unknown architecture "resnet43" (did you mean "resnet34"?)',
    ),
    "unknown convolution": (
        "networks.student.conv",
        "G[N]",
        'networks.student: conv: unknown convolution "G[N]" (did you mean "G(N)"?)',
    ),
    "convolution that isn't the paper's": (
        "networks.student.conv",
        "BG(2)",
        'unknown convolution "BG(2)" (did you mean "B(2)"?)',
    ),
    "wide ResNet of a depth that is none": (
        "networks.student",
        {"arch": "wrn-18-2"},
        '"wrn-18-2": a wide ResNet has three groups of (depth - 4) / 6 blocks',
    ),
    "block of a network without a choice": (
        "networks.student.block",
        "single",
        "block: only valid for wide ResNets such as wrn-40-2, not for resnet18",
    ),
    "widths of a network without them": (
        "networks.student",
        {"arch": "vgg11", "channels": [4, 4, 8, 8]},
        "channels: only valid for torchvision's ResNets, not for vgg11",
    ),
    "attention points of other number than the teacher's": (
        "networks.student",
        {"arch": "wrn-10-1"},
        "networks.student.points: 3 attention points, but the teacher teacher has 4; name as many",
    ),
    "a network without usual attention points": (
        "networks.student",
        {"arch": "efficientnet_b0"},
        "networks.student.points: missing; efficientnet_b0 has no default points; list them",
    ),
    "more groups than the networks have": (
        "methods.at.groups",
        [2, 3, 4, 5],
        "methods.at.groups: 5, but the teacher teacher has 4 groups",
    ),
    "alpha above 1": ("methods.kd", {"alpha": 1.1, "temperature": 4.0}, "methods.kd: alpha: must be at most 1, found"),
    "no temperature": ("methods.kd", {"alpha": 0.9}, "knowledge distillation needs both alpha and temperature"),
    "temperature of 0": ("methods.kd", {"alpha": 0.9, "temperature": 0.0}, "methods.kd.temperature: must be above 0"),
    "a method of nothing": ("methods.kd", {}, "methods.kd: needs beta and groups (attention transfer), alpha and"),
    "no weight at all": (
        "methods.x",
        {"alpha": 0.0, "temperature": 1.0, "beta": 0.0, "groups": [1], "cross_entropy": 0.0},
        "methods.x: cross_entropy: 0, like the weights of all other losses, so there is nothing to minimise",
    ),
    "smoothed labels without weight": (
        "methods.x",
        {"alpha": 1.0, "temperature": 1.0, "recipe": {"label_smoothing": 0.1}},
        "methods.x: recipe.label_smoothing: has no effect, because the cross-entropy with the labels has weight 0",
    ),
    "class weights without weight": (
        "methods.x",
        {"dist": {"beta": 1.0, "gamma": 1.0, "temperature": 1.0}, "cross_entropy": 0.0}
        | {"recipe": {"class_weights": "balanced"}},
        "methods.x: recipe.class_weights: has no effect, because the cross-entropy with the labels has weight 0",
    ),
    "DIST without a weight": (
        "methods.x",
        {"dist": {"beta": 0.0, "gamma": 0.0, "temperature": 1.0}},
        "methods.x.dist: beta, gamma: must not both be 0",
    ),
    "DKD without a weight": (
        "methods.x",
        {"dkd": {"alpha": 0.0, "beta": 0.0, "temperature": 1.0}},
        "methods.x.dkd: alpha, beta: must not both be 0",
    ),
    "DKD without a temperature": (
        "methods.x",
        {"dkd": {"alpha": 1.0, "beta": 1.0}},
        "methods.x.dkd.temperature: missing",
    ),
    "DKD with a negative weight": (
        "methods.x",
        {"dkd": {"alpha": -1.0, "beta": 1.0, "temperature": 1.0}},
        "methods.x.dkd.alpha: must be at least 0",
    ),
    "a warm-up longer than the training": (
        "methods.x",
        {"dkd": {"alpha": 1.0, "beta": 1.0, "temperature": 1.0, "warmup_epochs": 3}},
        "methods.x.dkd.warmup_epochs: 3 is more than the 2 epochs",
    ),
    "TTM with an exponent of 0": (
        "methods.x",
        {"ttm": {"weight": 1.0, "exponent": 0.0}},
        "methods.x.ttm.exponent: must be above 0",
    ),
    "TTM with a weight of 0": (
        "methods.x",
        {"ttm": {"weight": 0.0, "exponent": 0.1}},
        "methods.x.ttm.weight: must be above",
    ),
    "a negative cross-entropy": (
        "methods.x",
        {"ttm": {"weight": 1.0, "exponent": 0.1}, "cross_entropy": -1.0},
        "methods.x.cross_entropy: must be at least 0",
    ),
    "standardised logits that nothing compares": (
        "methods.at.standardise_logits",
        True,
        "methods.at: standardise_logits: no loss compares logits; add alpha, dist, dkd or ttm",
    ),
    "a form of what isn't there": (
        "methods.kd",
        {"alpha": 0.9, "temperature": 4.0, "form": "norm"},
        "form: belongs to attention transfer, which needs beta and groups",
    ),
    "step after the end": ("recipe.lr_steps", [2], "lr_steps: 2 is not before the last of 2 epochs"),
    "steps that fall": ("recipe.lr_steps", [1, 1], "recipe.lr_steps: must ascend"),
    "more processes than images": ("recipe.processes", 129, "processes: 129 cannot share a batch of 128"),
    "an attention point twice": (
        "networks.student.points",
        ["layer1", "layer2", "layer3", "layer1"],
        "networks.student: points: duplicate entry",
    ),
    "a group twice": ("methods.at.groups", [1, 1, 2, 3], "methods.at: groups: duplicate entry"),
    "groups without beta": ("methods.at", {"groups": [1]}, "attention transfer needs both beta and groups"),
    "last epoch before the first": (
        "methods.at",
        {"beta": 1.0, "groups": [1], "first_epoch": 2, "last_epoch": 1},
        "methods.at: first_epoch: 2 is after last_epoch 1",
    ),
    "a method in both lists": (
        "distil_more",
        {"networks": ["student"], "methods": ["at"]},
        "distil_more.methods: at is already in distil.methods",
    ),
    "epoch after the end": ("methods.at.first_epoch", 3, "methods.at.first_epoch: 3 is after the last of 2 epochs"),
    "betas for other groups": ("methods.at.beta", [1.0, 2.0], "beta: 2 values for 4 groups"),
    "photographs' crops of small images": (
        "recipe.augmentation.crop_scale",
        [0.08, 1.0],
        "recipe.augmentation.crop_scale: for JPEG images, not for digits",
    ),
    "the larger share first": (
        "recipe.augmentation.crop_scale",
        [1.0, 0.08],
        "recipe.augmentation: crop_scale: 1.0 is more than 0.08",
    ),
    "border as wide as the image": (
        "recipe.augmentation.pad",
        12,
        "recipe.augmentation.pad: 12 would move images of 12 pixels out of sight",
    ),
    "photographs' size of small images": (
        "recipe.augmentation.crop_size",
        8,
        "recipe.augmentation.crop_size: for JPEG images, not for digits, whose images all have dataset.size",
    ),
    "a square larger than the image": (
        "recipe.augmentation.cutout",
        13,
        "recipe.augmentation.cutout: 13 is more than the 12 pixels of a training image; choose less",
    ),
    "no mixing at all": ("recipe.augmentation.mixup", 0, "recipe.augmentation.mixup: must be at least 0.05, found 0"),
    "an alpha that cannot be drawn": ("recipe.augmentation.mixup", 1e-3, "recipe.augmentation.mixup: must be at least"),
    "an alpha without chance": (
        "recipe.augmentation.cutmix",
        1e300,
        "recipe.augmentation.cutmix: must be at most",
    ),
    "a negative alpha": ("recipe.augmentation.cutmix", -1.0, "recipe.augmentation.cutmix: must be at least 0.05"),
    "more than always": ("recipe.augmentation.random_erasing", 1.5, "recipe.augmentation.random_erasing: must be"),
    "photographs' evaluation of small images": (
        "dataset.evaluation",
        {"resize": 28},
        "dataset: evaluation, resize: for JPEG images, not for digits",
    ),
    "photographs' scaling of small images": (
        "dataset.resize",
        28,
        "dataset: evaluation, resize: for JPEG images, not for digits",
    ),
    "photographs evaluated at less than their size": (
        "dataset",
        {**JPEG_DATASET, "evaluation": {"resize": 23}},
        "dataset: evaluation.resize: 23 is less than size 24",
    ),
    "photographs kept at less than their size": (
        "dataset",
        {**JPEG_DATASET, "resize": 23},
        "dataset: resize: 23 is less than size 24",
    ),
    "a part held out of what has a split": (
        "dataset",
        {**JPEG_DATASET, "validation": 20},
        "dataset: validation: not for folder; use validation_share",
    ),
    "all images held out": (
        "dataset",
        {**JPEG_DATASET, "validation_share": 1.0},
        "dataset.validation_share: must be below 1, found 1.0",
    ),
    "a share of what has a split": (
        "dataset.validation_share",
        0.2,
        "dataset: validation_share: only for the source folder, not for digits",
    ),
    "labels of what has them": (
        "dataset.labels",
        "labels.csv",
        "dataset: labels: only for the source folder, not for digits",
    ),
    "digits held by a camera": (
        "dataset.exif_orientation",
        True,
        "dataset: exif_orientation: only for the source folder, not for digits",
    ),
    "photographs of two channels": (
        "dataset",
        {**JPEG_DATASET, "channels": 2},
        "dataset: channels: 2; must be 1, for grey, or 3",
    ),
    "a part of photographs": ("dataset", {**JPEG_DATASET, "training": 20}, "dataset: training: not for folder"),
    "data in neither list": ("dataset.shared", [], "shared, licensed: one must be [digits], the other []"),
    "data in both lists": ("dataset.licensed", ["digits"], "shared, licensed: one must be [digits], the other []"),
    "a teacher that nothing trains": ("teacher", "train/techer/seed0", 'teacher: no row produces "train/techer/seed0"'),
    "too few digits held out": ("dataset.validation", 9, "validation: 9 of 1797 digits; both splits need at least ten"),
    "too few digits left": (
        "dataset.validation",
        1790,
        "validation: 1790 of 1797 digits; both splits need at least ten",
    ),
    "fewer images than classes": ("dataset.training", 9, "training: 9 images, but 10 classes"),
    "colours of grey images": ("dataset.channels", 3, "channels: 3, but digits has 1"),
    "classes that the digits haven't": ("dataset.classes", 9, "classes: 9, but digits has 10"),
    "an image that isn't there": (
        "attention_maps.images",
        [0, 600],
        "attention_maps.images: 600, but the last validation image is 599",
    ),
    "an image twice": ("attention_maps.images", [7, 7], "attention_maps.images: duplicate entry"),
    "raw data of no source": ("machine.raw_data", {"imagnet": "/x"}, "machine.raw_data.imagnet"),
    "an unknown row to quantise": (
        "quantise",
        {"train/techer": QUANTISE},
        'quantise: unknown row "train/techer" (did you mean "train/teacher"?)',
    ),
    "an unknown published network to quantise": (
        "quantise_fetch",
        {"teacher": QUANTISE},
        'quantise_fetch: unknown published network "teacher"',
    ),
    "int8 calibrated on no image": (
        "quantise",
        {"train/teacher": {**QUANTISE, "images": 0}},
        "quantise.train/teacher.images",
    ),
    "int8 columns of no quantised row": (
        "tables",
        [{"name": "a", "title": "A", "caption": "", "rows": ["train/teacher"], "columns": ["int8_top1"]}],
        "tables.a.columns: no row of the table is quantised (quantise, quantise_fetch)",
    ),
    "a title twice": (
        "titles",
        {"train/teacher": "T", "distil/at/student": "T"},
        'titles: "T" is the title of two rows',
    ),
    "a blank title": (
        "titles.train/teacher",
        " ",
        "titles.train/teacher: must be one line that is not blank, found ' '",
    ),
    "a title of two lines": (
        "titles.train/teacher",
        "Teacher\nof all",
        "titles.train/teacher: must be one line that is not blank, found 'Teacher\\nof all'",
    ),
    "a title that no SVG file can have": (
        "titles.train/teacher",
        "A\x01B",
        "titles.train/teacher: must not contain the control character '\\x01', found 'A\\x01B'",
    ),
    "a title that YAML ends with a new line": ("titles.train/teacher", "Teacher\n", "found 'Teacher\\n'"),
    "a blank heading": ("tables", [{**TABLE, "title": ""}], "tables.0.title: must be one line that is not blank"),
    "a published column without a name": (
        "tables",
        [{**TABLE, "published": [{"name": "", "source": "x", "values": {}}]}],
        "tables.0.published.0.name: must be one line that is not blank",
    ),
    "a table twice": ("tables", [TABLE] * 2, "tables: duplicate entry all"),
    "a published column twice": (
        "tables",
        [{**TABLE, "published": [{"name": "note", "source": "x", "values": {}}] * 2}],
        "tables.all.published: duplicate entry note",
    ),
    "a published value of no row of the table": (
        "tables",
        [{**TABLE, "published": [{"name": "note", "source": "x", "values": {"train/student": {"top1": 1.0}}}]}],
        'tables.all.published.note.values: unknown row of this table "train/student"',
    ),
    "a comparison with no row": (
        "tables",
        [{**TABLE, "compare": "train/techer"}],
        'tables.all.compare: unknown row "train/techer"',
    ),
    "a row of a table twice": (
        "tables",
        [{**TABLE, "rows": ["train/teacher", "train/teacher"]}],
        "tables.all.rows: duplicate entry train/teacher",
    ),
    "a column of a table twice": (
        "tables",
        [{**TABLE, "columns": ["top1", "size", "top1"]}],
        "tables.all.columns: duplicate entry top1",
    ),
    "a published column with a name of the table's": (
        "tables",
        [{**TABLE, "published": [{"name": "std", "source": "x", "values": {}}]}],
        "tables.all.published: std is already the name of a column of the CSV",
    ),
    "title of no row": (
        "titles",
        {"train/techer": "T"},
        'titles: unknown row "train/techer" (did you mean "train/teacher"?)',
    ),
    "name with a dot": ("experiment", "a.b", "experiment: must be of lower-case letters"),
}


@pytest.mark.parametrize(("path", "value", "line"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_in_one_line(path: str, value: Any, line: str, tmp_path: Path) -> None:
    message = complaint(tmp_path, changed(path, value))
    lines = message.splitlines()
    assert line in lines[0]
    assert all(each.startswith(f"{tmp_path}/params.yaml: ") for each in lines), "one line a mistake"


@pytest.mark.parametrize("name", ["paper_std", "paper_p", "their_difference", "paper_minus_scratch"])
def test_a_published_column_that_ends_as_the_tables_own_is_refused(name: str, tmp_path: Path) -> None:
    published = {"name": name, "source": "x", "values": {}}
    line = f"tables.all.published: {name} is already the name of a column of the CSV"
    assert line in complaint(tmp_path, changed("tables", [{**TABLE, "published": [published]}]))


def test_the_file_that_dvc_reads_gets_no_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for keys that other experiments do not have."""
    monkeypatch.chdir(tmp_path)
    without_groups, without_crops = changed("methods.at", {"beta": 1.0}), changed("dataset", JPEG_DATASET)
    assert "attention transfer needs both beta and groups" in complaint(Path(), without_groups)
    without_evaluation = changed("dataset", {**JPEG_DATASET, "evaluation": None})
    assert "evaluation: missing; the JPEG images of folder have any size" in complaint(Path(), without_evaluation)
    assert "recipe.augmentation.crop_scale: missing key; JPEG images are cropped" in complaint(Path(), without_crops)


def test_photographs_are_not_padded(tmp_path: Path) -> None:
    params = changed("dataset", JPEG_DATASET)
    params["recipe"]["augmentation"] = {"crop_scale": [0.08, 1.0], "flip": True, "pad": 1}
    assert "recipe.augmentation.pad: for small images, not for folder" in complaint(tmp_path, params)


def photographs_cropped_to(size: int, **keys: Any) -> dict[str, Any]:
    params = changed("dataset", {**JPEG_DATASET, "size": 64, "evaluation": {"resize": 73}, "resize": 80})
    params["recipe"]["augmentation"] = {"crop_scale": [0.08, 1.0], "flip": True, "crop_size": size, **keys}
    return params


def test_photographs_are_not_trained_on_at_more_than_their_size(tmp_path: Path) -> None:
    line = "recipe.augmentation.crop_size: 81 is more than dataset.resize 80, so every crop would be enlarged"
    assert line in complaint(tmp_path, photographs_cropped_to(81))
    line = "recipe.augmentation.cutout: 33 is more than the 32 pixels of a training image"
    assert line in complaint(tmp_path, photographs_cropped_to(32, cutout=33))


def test_networks_must_take_the_size_that_they_are_trained_at(tmp_path: Path) -> None:
    """The teacher too, at the size of its students."""
    params = photographs_cropped_to(64)
    params["networks"] = {"teacher": {"arch": "vgg11"}, "student": {"arch": "resnet18"}}
    params["methods"]["at"] = {"alpha": 0.5, "temperature": 4.0}
    params["attention_maps"]["distilled"] = "distil/at/student/seed0"
    params["networks"]["student"]["points"] = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    write_params(tmp_path, params)
    check_networks(read_params(tmp_path / "params.yaml"))
    small = {"crop_scale": [0.08, 1.0], "flip": True, "crop_size": 16}
    params["networks"]["student"]["recipe"] = {"augmentation": small}
    write_params(tmp_path, params)
    with pytest.raises(ParamsError) as error:
        check_networks(read_params(tmp_path / "params.yaml"))
    key = "networks.student.recipe.augmentation.crop_size"
    assert str(error.value).startswith(f"{key}: teacher cannot take images of 3 x 16 x 16: ")
    assert "\n" not in str(error.value)
    small["crop_size"], params["recipe"]["batch_size"] = 32, 1
    params["networks"]["student"]["recipe"] = {"augmentation": small}
    write_params(tmp_path, params)
    with pytest.raises(ParamsError, match="too few for the batch norm of student"):
        check_batch_norms(read_params(tmp_path / "params.yaml"))


def test_rows_that_dvc_would_take_for_one_are_refused(tmp_path: Path) -> None:
    params = toy_params()
    thin = params["networks"]["student"]
    params["networks"] = {"teacher": params["networks"]["teacher"], "y": thin, "x-y": thin}
    params["methods"] = dict.fromkeys(("at", "at-x"), params["methods"]["at"])
    params["distil"] = {"networks": ["x-y", "y"], "methods": ["at", "at-x"]}
    params["titles"], params["tables"] = {}, [{**TABLE, "rows": ["train/teacher"]}]
    params["attention_maps"]["distilled"] = "distil/at/y/seed0"
    line = "distil: distil/at/x-y and distil/at-x/y would be one stage, distil@toy-at-x-y; rename one"
    assert line in complaint(tmp_path, params)


def test_attention_maps_need_as_many_points_whatever_the_methods(tmp_path: Path) -> None:
    params = toy_params()
    params["methods"]["at"] = {"alpha": 0.9, "temperature": 4.0}
    params["networks"]["student"] = {"arch": "wrn-10-1"}
    line = "networks.student.points: 3 attention points, but the teacher teacher has 4; name as many"
    assert line in complaint(tmp_path, params)


def test_networks_that_learn_no_attention_need_not_have_the_teachers_points(tmp_path: Path) -> None:
    """Those of a group without attention transfer, beside one with it."""
    params = toy_params()
    params["networks"]["wide"] = {"arch": "wrn-10-1", "points": ["group1.0.bn1"]}
    params["networks"]["without"] = {"arch": "efficientnet_b0"}
    params["methods"]["kd"] = {"alpha": 0.9, "temperature": 4.0}
    params["distil_more"] = {"networks": ["wide", "without"], "methods": ["kd"]}
    write_params(tmp_path, params)
    check_networks(read_params(tmp_path / "params.yaml"))
    params["distil_more"]["methods"] = ["kd", "more"]
    params["methods"]["more"] = params["methods"]["at"]
    assert "networks.without.points: missing; efficientnet_b0 has no default" in complaint(tmp_path, params)


def test_the_teacher_is_known_even_where_nothing_is_distilled(tmp_path: Path) -> None:
    params = toy_params()
    params["distil"] = {"networks": [], "methods": []}
    params["titles"], params["tables"] = {}, [{**TABLE, "rows": ["train/teacher"]}]
    params["attention_maps"]["distilled"] = params["attention_maps"]["scratch"]
    params["teacher"] = "train/nothing/seed0"
    assert 'teacher: no row produces "train/nothing/seed0"' in complaint(tmp_path, params)


def test_an_image_that_prepared_data_lack_is_refused_before_training(tmp_path: Path) -> None:
    params = toy_params()
    del params["dataset"]["validation"]
    write_params(tmp_path, params)
    run_moonshine("prepare", cwd=tmp_path)
    params["attention_maps"]["images"] = [360]
    write_params(tmp_path, params)
    for command in (("check",), ("train", "teacher", "--seed", "0")):
        result = run_moonshine(*command, cwd=tmp_path, check=False)
        assert result.returncode == 2
        assert result.stderr == "error: attention_maps.images: 360, but the last validation image is 359\n"


@pytest.mark.slow
def test_data_that_were_prepared_for_other_params_are_refused(tmp_path: Path) -> None:
    """By single commands; the engines prepare them again."""
    params = toy_params()
    write_params(tmp_path, params)
    run_moonshine("prepare", cwd=tmp_path)
    params["dataset"]["size"] = 20
    write_params(tmp_path, params)
    run_moonshine("check", cwd=tmp_path)
    for command in (("train", "teacher", "--seed", "0"), ("evaluate", "train/teacher"), ("attention-maps",)):
        result = run_moonshine(*command, cwd=tmp_path, check=False)
        reason = "data/digits: prepared with dataset.size 12, not 20; run `moonshine prepare`"
        assert (result.returncode, result.stderr) == (3, f"error: {reason}\n")


def test_the_unchanged_params_are_accepted(tmp_path: Path) -> None:
    write_params(tmp_path, toy_params())
    rows = [row.name for row in read_params(tmp_path / "params.yaml").rows]
    assert rows == ["train/teacher", "distil/at/student"]


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    params = toy_params()
    del params["recipe"]["lr"]
    assert "recipe.lr: missing key" in complaint(tmp_path, params)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seeds: [0]\nseeds: [1]\n", "duplicate key 'seeds'"),
        ("a: [1]\nb: *x\n", "found undefined alias 'x'"),
        ("a: &x [*x]\n", "its aliases expand to more than 100,000 values"),
        ("a: {<<: {b: 1}, <<: {c: 1}}\n", "duplicate key '<<'"),
        ("a: &x {b: 1, b: 2}\nc: {<<: *x}\n", "duplicate key 'b'"),
        ("a: [<<]\n", "could not determine a constructor for the tag 'tag:yaml.org,2002:merge'"),
        ("a: !!python/object/apply:os.system ['true']\n", "apply:os.system. are not used here"),
        ("a: !!int '010'\n", "tags .tag:yaml.org,2002:int. are not used here"),
        ("%YAML 1.1\n---\na: 1e-2\n", "leave out the %YAML directive"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "expected a mapping"),
        ("1: 1\n", "keys must be strings"),
    ],
)
def test_what_yaml_must_not_do(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=reason):
        read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a: &x [1]\nb: *x\n", {"a": [1], "b": [1]}),
        ("a: &x {b: 1, c: 2}\nd: {c: 3, <<: *x}\ne: *x\n", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: &x {b: {<<: &y {c: 1, d: 2}, c: 3}}\ne: *y\n", {"a": {"b": {"c": 3, "d": 2}}, "e": {"c": 1, "d": 2}}),
        ("a: &x {b: 1}\nc: &y {b: 2, d: 3}\ne: {<<: [*x, *y]}\n", {"e": {"b": 1, "d": 3}}),
    ],
)
def test_an_alias_stands_for_what_it_names_as_dvc_reads_it(text: str, meaning: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert read_yaml(path) == load_yaml(path)
    assert read_yaml(path) | meaning == read_yaml(path)


SCALARS = {
    "010": None,
    "0o10": None,
    "08": None,
    "-00.5": None,
    "+.5": None,
    "+_1": None,
    "1:30": None,
    "1:30.5": None,
    "2026-01-31": None,
    "yes": None,
    "no": None,
    "On": None,
    "off": None,
    "1e-2": 0.01,
    "1E5": 100000.0,
    "1.5e3": 1500.0,
    "1.0e-4": 0.0001,
    "1_000": 1000,
    "0x10": 16,
    "-0": 0,
    ".5": 0.5,
    ".inf": float("inf"),
    "~": None,
    "null": None,
    "": None,
    "TRUE": True,
    "false": False,
    "y": "y",
    "1,000": "1,000",
    "'010'": "010",
    "03b5dce01913d631647c71ecec9e9cb8": "03b5dce01913d631647c71ecec9e9cb8",
}
"""Plain scalars and what they are; None for null, and for what YAML 1.1 and 1.2 read differently."""


@pytest.mark.parametrize("scalar", SCALARS)
def test_a_scalar_is_what_dvc_reads_or_is_refused(scalar: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"a: {scalar}\n")
    if SCALARS[scalar] is None and scalar not in ("~", "null", ""):
        with pytest.raises(ParamsError, match=rf"{re.escape(scalar)} is read differently by YAML 1.1 and 1.2: write a"):
            read_yaml(path)
    else:
        (value,), (by_dvc,) = read_yaml(path).values(), load_yaml(path).values()
        assert (type(value), value) == (type(by_dvc), by_dvc) == (type(SCALARS[scalar]), SCALARS[scalar])


def test_a_number_with_an_exponent_alone_is_a_number(tmp_path: Path) -> None:
    """YAML 1.1 takes 1e-2 for text; DVC reads a number, and writes 1e-05."""
    write_params(tmp_path, toy_params())
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text().replace("weight_decay: 0.0001", "weight_decay: 1e-05"))
    assert read_params(path).recipe.weight_decay == 1e-05


@pytest.mark.parametrize("params", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_order_of_keys_changes_nothing(params: Path, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(params.read_text()), sort_keys=True))
    ordered, reordered = read_params(params), read_params(path)
    assert ordered == reordered
    assert ordered.rows == reordered.rows == Params.model_validate(yaml.safe_load(params.read_text())).rows
    for key in ("networks", "methods", "fetch"):
        assert list(getattr(ordered, key)) == list(getattr(reordered, key)) == list(read_yaml(params)[key])
    files = list(read_yaml(params)["dataset"].get("files", {}))
    assert list(ordered.dataset.files or {}) == list(reordered.dataset.files or {}) == files


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:80@example.org/x",
        "https://user:secret@example.org/x",
        "http://127.0.0.1.example.org/x",
        "http://localhost.example.org/x",
        "http://localhost\\@example.org/x",
        "http://example.org/x",
        "ftp://example.org/x",
        "file:///etc/passwd",
        "https:///x",
        "https://",
        "https://example.org:x/y",
        "https://[x/y",
        "https://example.org/a b",
        "https://example.org/\u0130",
        " https://example.org/x",
        "javascript:x",
    ],
)
def test_a_url_is_parsed_and_refused(url: str, tmp_path: Path) -> None:
    line = "fetch.teacher.url: "
    assert line in complaint(tmp_path, changed("fetch", {"teacher": {"url": url, "sha256": "0" * 64}}))


@pytest.mark.parametrize(
    "url", ["https://example.org/a%20b?c=d@e", "https://example.org:8443/x", "http://localhost:80/x", "../a b.pth"]
)
def test_urls_and_paths_that_are_accepted(url: str, tmp_path: Path) -> None:
    write_params(tmp_path, changed("fetch", {"teacher": {"url": url, "sha256": "0" * 64}}))
    assert read_params(tmp_path / "params.yaml").fetch["teacher"].url == url


@pytest.mark.parametrize("folder", ["~/.ssh", ".", "moonshine", "/disk/downloads/..", ".dvc", "down\nloads", ""])
def test_downloads_go_to_no_folder_of_another_use(folder: str, tmp_path: Path) -> None:
    """Their names and contents are params.yaml's own."""
    assert "machine.downloads: " in complaint(tmp_path, changed("machine.downloads", folder))


@pytest.mark.parametrize(
    "command",
    [
        ("check",),
        ("prepare",),
        ("train", "teacher", "--seed", "0"),
        ("distil", "at/student", "--seed", "0"),
        ("report",),
    ],
)
def test_every_command_refuses_before_any_work(command: tuple[str, ...], tmp_path: Path) -> None:
    write_params(tmp_path, changed("recipe.epochs", 0))
    result = run_moonshine(*command, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr == ("error: params.yaml: recipe.epochs: must be at least 1, found 0\n")
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


UNBUILDABLE = {
    "groups that don't divide": (
        {"arch": "wrn-10-1", "conv": "G(3)"},
        "networks.student: wrn-10-1 with G(3): layer group1.0.conv1: G(3): 16 channels cannot be split into 3 groups",
    ),
    "no bottleneck left": (
        {"arch": "wrn-10-1", "conv": "B(32)"},
        "networks.student: wrn-10-1 with B(32): layer group1.0.conv1: B(32): 16 channels leave no bottleneck of "
        "1/32 of them",
    ),
    "a block that cannot have its convolution": (
        {"arch": "wrn-10-1", "convs": ["G(4)", "G(3)", "S"]},
        "networks.student: wrn-10-1 with convs: layer group2.0.conv1: G(3): 16 channels cannot be split into 3 groups",
    ),
    "a point in a convolution that its block has lost": (
        {"arch": "wrn-10-1", "convs": ["S", "S", "B(2)"], "points": ["group1", "group2", "group3.0.conv2"]},
        'networks.student: points: wrn-10-1 has no module "group3.0.conv2" (did you mean "group3.0.conv1"?)',
    ),
    "a point that is none": (
        {"arch": "wrn-10-1", "points": ["group1", "group2", "grup3"]},
        'networks.student: points: wrn-10-1 has no module "grup3" (did you mean "group3"?)',
    ),
    "a point without maps": (
        {"arch": "wrn-10-1", "points": ["group1", "group2", "fc"]},
        "networks.student: points: fc gives no maps of (channels, height, width), but (10,)",
    ),
    "a point that is never run": (
        {"arch": "swin_t", "points": ["features.1", "features.1.0.attn.qkv", "features.3"]},
        "networks.student: points: features.1.0.attn.qkv gives no tensor",
    ),
    "a point that is overwritten": (
        {"arch": "wrn-10-1", "points": ["group1.0.bn1", "group2.0.relu", "group3"]},
        "networks.student: points: group1.0.bn1 gives maps that the network overwrites in place, so that no student "
        "can learn them; name a module after it",
    ),
    "groups without width": (
        {"arch": "resnext50_32x4d", "channels": [8, 16, 32, 64], "points": ["layer1", "layer2", "layer3"]},
        "networks.student: cannot be built: channels: 8 leaves its grouped convolutions none; 16 is the least",
    ),
    "nothing to substitute": (
        {"arch": "mobilenet_v2", "conv": "G(N)", "points": ["features.3", "features.6", "features.13"]},
        "networks.student: conv: G(N) replaces no convolution; leave it out "
        '(`moonshine describe --arch mobilenet_v2 --conv "G(N)"` shows why)',
    ),
    "images too small": (
        {"arch": "alexnet", "points": ["features.1", "features.4", "features.11"]},
        "networks.student: cannot take images of 1 x 12 x 12: Given input size: (64x2x2). Calculated output "
        "size: (64x0x0). Output size is too small",
    ),
}


@pytest.mark.parametrize(("network", "line"), UNBUILDABLE.values(), ids=UNBUILDABLE)
def test_a_network_that_cannot_be_built_is_refused_before_training(
    network: dict[str, Any], line: str, tmp_path: Path
) -> None:
    params = changed("networks", {"teacher": {"arch": "wrn-10-1"}, "student": network})
    params["methods"]["at"]["groups"] = [1, 2, 3]
    write_params(tmp_path, params)
    with pytest.raises(ParamsError) as error:
        check_networks(read_params(tmp_path / "params.yaml"))
    assert str(error.value) == line


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_widths_that_a_grouped_resnet_cannot_have_are_refused(tmp_path: Path) -> None:
    write_params(tmp_path, changed("networks.teacher", {"arch": "resnext50_32x4d", "channels": [8, 16, 32, 64]}))
    with pytest.raises(ParamsError) as error:
        check_networks(read_params(tmp_path / "params.yaml"))
    assert str(error.value).startswith("networks.teacher: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("recipe", "found"), [({"batch_size": 1}, "1"), ({"batch_size": 3, "processes": 2}, "3 for 2 processes")]
)
def test_batches_of_one_image_are_refused_where_batch_norm_would_meet_one_value(
    recipe: dict[str, int], found: str, tmp_path: Path
) -> None:
    params = toy_params()
    params["recipe"].update(recipe)
    write_params(tmp_path, params)
    check_batch_norms(read_params(tmp_path / "params.yaml"))  # its last maps are of 2 x 2
    params["networks"]["student"]["stem"] = None
    write_params(tmp_path, params)
    result = run_moonshine("check", cwd=tmp_path, check=False)
    line = f"error: recipe.batch_size: {found}, too few for the batch norm of student; choose another\n"
    assert (result.returncode, result.stderr) == (2, line)
    params["recipe"].update(batch_size=4)
    write_params(tmp_path, params)
    check_batch_norms(read_params(tmp_path / "params.yaml"))


def test_a_teacher_may_be_read_where_a_student_may_not(tmp_path: Path) -> None:
    """It has no backward pass."""
    points = ["group1.0.bn1", "group2", "group3"]
    params = changed("networks", {"teacher": {"arch": "wrn-10-1", "points": points}, "student": {"arch": "wrn-10-1"}})
    params["methods"]["at"]["groups"] = [1, 2, 3]
    write_params(tmp_path, params)
    check_networks(read_params(tmp_path / "params.yaml"))


@pytest.mark.slow
def test_training_refuses_what_check_refuses(tmp_path: Path) -> None:
    """Before it trains even the teacher, whose student cannot be built."""
    write_params(tmp_path, toy_params())
    run_moonshine("prepare", cwd=tmp_path)
    write_params(tmp_path, changed("networks.student.conv", "G(3)"))
    for command in (("check",), ("train", "teacher", "--seed", "0")):
        result = run_moonshine(*command, cwd=tmp_path, check=False)
        assert result.returncode == 2
        assert result.stderr.startswith("error: networks.student: resnet18 with G(3): layer layer1.0.conv1: G(3): 4 ch")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "command", [("--help",), ("describe", "--help"), ("check",), ("train", "teacher", "--seed", "0")]
)
def test_help_and_errors_in_params_do_not_import_torch(command: tuple[str, ...], tmp_path: Path) -> None:
    write_params(tmp_path, changed("recipe.epochs", 0))
    result = run_moonshine(*command, cwd=tmp_path, check=False, PYTHONPROFILEIMPORTTIME="1")
    assert "moonshine.cli" in result.stderr
    assert "| torch\n" not in result.stderr.replace(" ", "")


def test_no_params_file_is_explained(tmp_path: Path) -> None:
    result = run_moonshine("check", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr == "error: params.yaml: no such file; run this from the project's root\n"


def test_a_row_or_seed_that_params_do_not_have_is_refused(tmp_path: Path) -> None:
    write_params(tmp_path, toy_params())
    result = run_moonshine("train", "techer", "--seed", "0", cwd=tmp_path, check=False)
    assert (result.returncode, 'unknown row "train/techer"' in result.stderr) == (2, True)
    result = run_moonshine("train", "teacher", "--seed", "7", cwd=tmp_path, check=False)
    assert (result.returncode, "--seed 7: not among the experiment's seeds, [0]" in result.stderr) == (2, True)


def test_the_schema_fills_in_nothing_that_changes_a_result() -> None:
    """Defaults other than None and {} live in `machine`, which no stage declares; so params/ decides no bytes."""
    from pydantic import BaseModel

    from moonshine.params import schema

    sections = [c for c in vars(schema).values() if isinstance(c, type) and issubclass(c, BaseModel)]
    harmless = {schema.Machine, schema.Table}  # tables change no number
    for section in sections:
        for name, field in section.model_fields.items():
            given = field.is_required() or field.default in (None, {})
            assert given or section in harmless or name == "machine", f"{section.__name__}.{name}"


def test_every_key_is_explained(tmp_path: Path) -> None:
    """docs/parameters.md has a line for every key of the schema."""
    from moonshine.params import schema

    text = (ROOT / "docs" / "parameters.md").read_text()
    missing = [
        f"{section.__name__}.{name}"
        for section in vars(schema).values()
        if isinstance(section, type) and issubclass(section, schema.Section)
        for name in section.model_fields
        if f"`{name}`" not in text
    ]
    assert missing == []
    assert yaml.safe_load((ROOT / "params.yaml").read_text())["experiment"] == "digits"
