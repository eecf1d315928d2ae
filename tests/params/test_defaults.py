"""A file in experiments/ may leave out what can be counted or has one sensible value."""

import copy
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.separate_project import ROOT, write_params
from moonshine.errors import ParamsError
from moonshine.params import read_params
from moonshine.params.defaults import RULES, complete, may_be_left_out
from moonshine.params.full_text import full_text
from moonshine.params.read import check_content, parse
from moonshine.runtime.files import sha256
from tests.support.project import run_moonshine, toy_params

SHORT = """\
# mine
experiment: own
dataset: {source: fashion_mnist, size: 14, files: {}} # small

recipe:
  epochs: 20 # long enough
  batch_size: 16

  # by hand
  lr: 0.05

networks:
  big:   {arch: resnet18}
  small: {arch: resnet18, conv: G(N)}

teacher: train/big/seed0
methods: {at: {beta: 100.0}}
# the machine
machine: {device: cpu}
"""


def short(**changes: Any) -> dict[str, Any]:
    """A short experiment with the values at paths such as `dataset__source` replaced."""
    params = yaml.safe_load(SHORT)
    for path, value in changes.items():
        *sections, key = path.split("__")
        place = params
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return params


def at(params: dict[str, Any], path: str) -> Any:
    value: Any = params
    for key in path.split("__"):
        value = value[key]
    return value


TWO_METHODS = {"kd": {"alpha": 0.9, "temperature": 4.0}, "at": {"beta": 1.0}}
WIDE = {"big": {"arch": "wrn-16-2"}, "small": {"arch": "wrn-16-2", "conv": "G(N)"}}
FETCHED = {"big": {"url": "https://example.org/big.pth", "sha256": "0" * 64}}

DEFAULTS: list[tuple[dict[str, Any], str, Any]] = [
    ({}, "seeds", [0, 1, 2]),
    ({}, "dataset__name", "own"),
    ({}, "dataset__classes", 10),
    ({"dataset__source": "cifar100"}, "dataset__classes", 100),
    ({"dataset__source": "imagenet"}, "dataset__classes", 1000),
    ({}, "dataset__channels", 1),
    ({"dataset__source": "cifar10"}, "dataset__channels", 3),
    ({}, "dataset__shared", ["own"]),
    ({}, "dataset__licensed", []),
    ({"dataset__name": "mine"}, "dataset__shared", ["mine"]),
    ({"dataset__source": "imagenet"}, "dataset__licensed", ["own"]),
    ({"dataset__source": "folder", "dataset__classes": 2}, "dataset__shared", []),
    ({"dataset__source": "folder", "dataset__classes": 2}, "dataset__licensed", ["own"]),
    ({"dataset__source": "folder", "dataset__classes": 2, "dataset__shared": ["own"]}, "dataset__licensed", []),
    ({"dataset__licensed": ["own"]}, "dataset__shared", []),
    ({"dataset__source": "imagenet", "dataset__size": 224}, "dataset__evaluation", {"resize": 256}),
    ({"dataset__source": "imagenette", "dataset__size": 128}, "dataset__evaluation", {"resize": 146}),
    ({"dataset__source": "imagenette", "dataset__evaluation": None}, "dataset__evaluation", {"resize": 16}),
    ({}, "recipe__threads", 1),
    ({}, "recipe__precision", "float32"),
    ({}, "recipe__compile", False),
    ({}, "recipe__momentum", 0.9),
    ({}, "recipe__weight_decay", 1e-4),
    ({}, "recipe__lr_factor", 0.1),
    ({"recipe__epochs": 100}, "recipe__lr_steps", [30, 60, 90]),
    ({"recipe__epochs": 7}, "recipe__lr_steps", [2, 4, 6]),
    ({"recipe__epochs": 2}, "recipe__lr_steps", [1]),
    ({"recipe__epochs": 1}, "recipe__lr_steps", []),
    ({"recipe__schedule": "steps"}, "recipe__lr_steps", [6, 12, 18]),
    ({"recipe__schedule": "cosine"}, "recipe__lr_steps", []),
    ({"recipe__schedule": "linear"}, "recipe__lr_steps", []),
    ({}, "recipe__augmentation", {"pad": 1, "flip": True}),
    ({"dataset__size": 32}, "recipe__augmentation", {"pad": 4, "flip": True}),
    ({"dataset__source": "digits"}, "recipe__augmentation__flip", False),
    ({"dataset__source": "imagenet"}, "recipe__augmentation", {"flip": True, "crop_scale": [0.08, 1.0]}),
    (
        {"dataset__source": "imagenet", "recipe__augmentation": {"crop_scale": [0.3, 1.0]}},
        "recipe__augmentation",
        {"crop_scale": [0.3, 1.0], "flip": True},
    ),
    ({"recipe__augmentation": {"flip": False}}, "recipe__augmentation", {"flip": False}),
    ({}, "methods__at__groups", [1, 2, 3, 4]),
    ({"networks": WIDE}, "methods__at__groups", [1, 2, 3]),
    ({"methods": TWO_METHODS}, "methods__kd", TWO_METHODS["kd"]),
    ({"methods": {"x": {"dist": {}}}}, "methods__x__dist", {"beta": 2.0, "gamma": 2.0, "temperature": 1.0}),
    ({"methods": {"x": {"dist": {"gamma": 0.5}}}}, "methods__x__dist__gamma", 0.5),
    ({"methods": None}, "methods", {}),
    ({"methods": None}, "distil", {"networks": [], "methods": []}),
    ({}, "fetch", {}),
    ({}, "train", ["big", "small"]),
    ({"fetch": FETCHED, "teacher": "fetch/big"}, "train", ["small"]),
    ({}, "distil", {"networks": ["small"], "methods": ["at"]}),
    ({"distil": {"networks": ["big"]}}, "distil", {"networks": ["big"], "methods": ["at"]}),
    (
        {"methods": TWO_METHODS, "distil_more": {"networks": ["small"], "methods": ["kd"]}},
        "distil",
        {"networks": ["small"], "methods": ["at"]},
    ),
    ({}, "distil_more", {"networks": [], "methods": []}),
    ({}, "titles", {}),
    (
        {},
        "tables",
        [
            {
                "name": "all",
                "title": "Results",
                "caption": "All networks; students learned from train/big/seed0.",
                "rows": ["train/big", "train/small", "distil/at/small"],
                "columns": ["parameters", "macs", "top1", "top5"],
            }
        ],
    ),
    (
        {},
        "attention_maps",
        {"scratch": "train/small/seed0", "distilled": "distil/at/small/seed0", "images": [0, 1, 2, 3, 4, 5]},
    ),
    ({"seeds": [4, 5]}, "attention_maps__scratch", "train/small/seed4"),
    ({"train": ["big"]}, "attention_maps__scratch", "train/big/seed0"),
    ({"methods": None}, "attention_maps__distilled", "train/big/seed0"),
    ({"methods": TWO_METHODS}, "attention_maps__distilled", "distil/at/small/seed0"),
    (
        {
            "networks": {**WIDE, "small": {"arch": "wrn-16-2"}, "mixed": {"arch": "wrn-16-2", "convs": ["B(2)"] * 6}},
            "train": ["big", "small", "mixed"],
            "distil": {"networks": ["small", "mixed"], "methods": ["at"]},
        },
        "attention_maps__distilled",
        "distil/at/mixed/seed0",
    ),
    ({"attention_maps": {"images": [3]}}, "attention_maps__scratch", "train/small/seed0"),
    ({"dataset__source": "imagenet"}, "attention_maps__images", []),
    ({"dataset__source": "imagenet", "attention_maps": {"images": [3]}}, "attention_maps__images", [3]),
    ({"dataset__source": "imagenette"}, "attention_maps__images", [0, 500, 1000, 1500]),
]


@pytest.mark.parametrize(("given", "path", "value"), DEFAULTS)
def test_what_is_left_out_follows_from_the_rest(given: dict[str, Any], path: str, value: Any) -> None:
    assert at(complete(short(**given))[0], path) == value


def test_a_few_classes_have_no_top5() -> None:
    table = complete(short(dataset__source="folder", dataset__classes=5))[0]["tables"][0]
    assert table["columns"] == ["parameters", "macs", "top1"]


def own_images(folder: Path) -> None:
    """Class folders as their owner may have them, with what is no class and no image."""
    for split, counts in (("train", (1, 1, 1)), ("val", (3, 2, 4))):
        for name, count in zip(("ant", "bee", "cat"), counts):
            (folder / split / name).mkdir(parents=True)
            for image in range(count):
                (folder / split / name / f"{image}.jpg").touch()
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "notes.txt").touch()
    (folder / "val" / "ant" / "Thumbs.db").touch()


def test_the_class_folders_of_own_images_are_counted(tmp_path: Path) -> None:
    own_images(tmp_path)
    given = short(dataset__source="folder", machine__raw_data={"folder": str(tmp_path)})
    params, _ = complete(given)
    assert params["dataset"]["classes"] == 3
    assert params["attention_maps"]["images"] == [], "own images are not published"
    shared, _ = complete({**given, "dataset": {**given["dataset"], "shared": ["own"]}})
    assert shared["attention_maps"]["images"] == [0, 3, 5], "the first of each class"


def test_class_folders_without_a_split_are_counted(tmp_path: Path) -> None:
    own_images(tmp_path)
    given = short(dataset__source="folder", machine__raw_data={"folder": str(tmp_path / "train")})
    assert complete(given)[0]["dataset"]["classes"] == 3
    labelled = {**given, "dataset": {**given["dataset"], "labels": "labels.csv"}}
    with pytest.raises(
        ParamsError, match=r"dataset\.classes: missing key; folders of classes are counted, labels in a"
    ):
        complete(labelled)
    (tmp_path / "train/data").mkdir()
    (tmp_path / "train/data/train-00000-of-00001.parquet").touch()
    with pytest.raises(ParamsError, match=r"dataset\.classes: missing key; .* has no folders of classes that could be"):
        complete(given)


def test_the_checksum_of_a_checkpoint_on_this_machine_is_computed(tmp_path: Path) -> None:
    (tmp_path / "big.pth").write_bytes(b"weights")
    given = short(fetch={"big": {"url": str(tmp_path / "big.pth")}}, teacher="fetch/big")
    assert complete(given)[0]["fetch"]["big"]["sha256"] == sha256(tmp_path / "big.pth")


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_experiments_leave_nothing_out_and_stay_to_the_letter(path: Path) -> None:
    text, content, filled = full_text(path)
    assert (text, content, filled) == (path.read_text(), parse(path.read_text()), [])


def places(params: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in params.items() if isinstance(params, dict) else ():
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.parametrize("path", [*filter(may_be_left_out, places(toy_params()))], ids=".".join)
@pytest.mark.parametrize("null", [False, True], ids=["absent", "null"])
def test_each_key_with_a_default_may_be_left_out(path: tuple[str, ...], null: bool, tmp_path: Path) -> None:
    params = toy_params()
    *sections, last = path
    place: Any = params
    for section in sections:
        place = place[section]
    if null:
        place[last] = None
    else:
        del place[last]
    if path == ("methods",):  # nothing can be distilled then
        params["distil"] = params["tables"] = params["titles"] = params["attention_maps"] = None
    write_params(tmp_path, params)
    text, content, filled = full_text(tmp_path / "params.yaml")
    assert path in filled
    assert read_params(tmp_path / "params.yaml") == check_content(tmp_path, content)
    assert parse(text) == content


def test_the_rules_are_for_keys_of_the_schema() -> None:
    from moonshine.params.messages import keys_at

    for place, rules in RULES.items():
        assert set(rules) <= set(keys_at(tuple("x" if part == "*" else part for part in place)))


LAYOUTS = {
    "lines": SHORT,
    "no newline at the end": SHORT.rstrip("\n"),
    "in braces": "{experiment: own, dataset: {source: digits, size: 12}, recipe: {epochs: 3,\n batch_size: 2, # two\n"
    " lr: 0.1}, networks: {a: {arch: resnet18}}, teacher: train/a/seed0}\n",
    "an empty section": SHORT.replace("{beta: 100.0}", "{dist: {}}"),
    "an empty section in lines": SHORT.replace("methods: {at: {beta: 100.0}}", "methods:\n  at:\n    dist: {}"),
    "nulls": SHORT + "train:\nseeds: null # ours\nfetch: ~\ndistil: {networks: [small], methods: }\n",
    "another order": "networks: {a: {arch: resnet18}}\nteacher: train/a/seed0\nmachine: {}\nrecipe:\n    lr: 0.1\n"
    "    batch_size: 2\n    epochs: 3\n\n# data\ndataset:\n  size: 12\n  source: digits\nexperiment: own\n",
    "aliases": SHORT.replace("methods: {at: {beta: 100.0}}", "methods:\n  at: &at {beta: 100.0}\n  two: *at"),
    "merged": SHORT.replace(
        "methods: {at: {beta: 100.0}}", "methods:\n  at: &at {beta: 1.0}\n  two: {<<: *at, beta: 2.0}"
    ),
    "text over lines": SHORT
    + "tables:\n  - {name: a, title: A, rows: [train/big], columns: [top1], caption: x}\n  - name: b\n    title: B\n"
    "    rows: [train/big]\n    columns: [top1]\n    caption: >-\n      one\n\n      two\n\n\n# end\n",
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_defaults_are_written_between_the_authors_own_words(text: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    written, content, filled = full_text(path)
    assert filled
    assert parse(written) == content == complete(parse(text))[0]
    ours = iter(written)
    assert all(character in ours for character in text.replace("null", "").replace("~", "")), "nothing is lost"
    assert full_text_of(written, tmp_path) == written, "a complete file stays as it is"


def full_text_of(text: str, folder: Path) -> str:
    (folder / "again.yaml").write_text(text)
    return full_text(folder / "again.yaml")[0]


def test_defaults_are_marked_where_the_schema_has_them(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(SHORT)
    lines = full_text(path)[0].splitlines()
    assert lines[:6] == [
        "# mine",
        "experiment: own",
        "seeds: [0, 1, 2]  # default",
        "dataset: {name: own, source: fashion_mnist, classes: 10, channels: 1, size: 14, files: {}, shared: [own], "
        "licensed: []} # small  # defaults: name, classes, channels, shared, licensed",
        "",
        "recipe:",
    ]
    assert lines[6:12] == [
        "  epochs: 20 # long enough",
        "  batch_size: 16",
        "",
        "  # by hand",
        "  lr: 0.05",
        "  lr_steps: [6, 12, 18]  # default",
    ]
    assert "methods: {at: {beta: 100.0, groups: [1, 2, 3, 4]}}  # default: at.groups" in lines
    assert lines[-2:] == ["# the machine", "machine: {device: cpu}"]


# through the command line


def project(folder: Path, params: dict[str, Any]) -> Path:
    (folder / "experiments").mkdir(parents=True)
    (folder / "experiments/own.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


DIGITS = {"dataset": {"source": "digits", "size": 12}}


def test_a_short_file_and_what_use_writes_are_the_same_experiment(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", short(**DIGITS))
    described = run_moonshine("--params", "experiments/own.yaml", "describe", cwd=folder).stdout
    run_moonshine("--params", "experiments/own.yaml", "check", cwd=folder)
    result = run_moonshine("use", "own", cwd=folder)
    assert re.search(r"3 rows, seeds \[0, 1, 2\]; 2\d keys filled in and marked as default", result.stderr)
    assert run_moonshine("describe", cwd=folder).stdout == described
    assert read_params(folder / "params.yaml") == read_params(folder / "experiments/own.yaml")
    run_moonshine("use", "own", cwd=folder)  # again: what it wrote is kept in experiments/
    shutil.copy(ROOT / "experiments/cifar10.yaml", folder / "experiments")
    run_moonshine("use", "cifar10", cwd=folder)


def test_the_file_that_dvc_reads_must_be_complete(tmp_path: Path) -> None:
    params = toy_params()
    del params["recipe"]["threads"], params["titles"]
    write_params(tmp_path, params)
    result = run_moonshine("check", cwd=tmp_path, check=False)
    why = (
        "missing key; DVC needs it here, only files in experiments/ may leave it out: "
        "save this file there as NAME.yaml and run `moonshine use NAME`, which fills it in"
    )
    assert (result.returncode, result.stderr.splitlines()) == (
        2,
        [f"error: params.yaml: recipe.threads: {why}", f"error: params.yaml: titles: {why}"],
    )


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a key that has no default": ({"recipe": {"epochs": 2, "batch_size": 2}}, "recipe.lr: missing key; keys here are"),
    "a mistyped key": ({"sedes": [0]}, 'sedes: unknown key (did you mean "seeds"?)'),
    "a value of another type": ({"seeds": 3}, "seeds: must be a list, for example [0, 1, 2], found 3"),
    "own images without their folder": (
        {"dataset": {"source": "folder", "size": 24}},
        "dataset.classes: missing, and so is machine.raw_data.folder, whose class folders would be counted",
    ),
    "own images that are not there": (
        {"dataset": {"source": "folder", "size": 24}, "machine": {"raw_data": {"folder": "none"}}},
        "dataset.classes: missing, and none cannot be listed to count them (No such file or directory)",
    ),
    "a checkpoint that is not there": (
        {"fetch": {"big": {"url": "none.pth"}}, "teacher": "fetch/big"},
        "fetch.big.url: none.pth: no such file; its sha256 is missing and would be computed",
    ),
    "a published checkpoint without a checksum": (
        {"fetch": {"big": {"url": "https://example.org/big.pth"}}, "teacher": "fetch/big"},
        "fetch.big.sha256: missing key",
    ),
}


@pytest.mark.parametrize(("changes", "line"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_filled_in_is_named(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    folder = project(tmp_path / "project", short(**DIGITS, **{k: v for k, v in changes.items() if k != "dataset"}))
    if "dataset" in changes:
        project_params = short(**changes)
        (folder / "experiments/own.yaml").write_text(yaml.safe_dump(project_params, sort_keys=False))
    result = run_moonshine("use", "own", cwd=folder, check=False)
    first, *others = result.stderr.splitlines()
    assert (result.returncode, others) == (2, [])
    assert first.startswith(f"error: experiments/own.yaml: {line}")
    assert not (folder / "params.yaml").exists()


def test_a_section_that_is_only_merged_has_no_room_for_defaults(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(SHORT.replace("methods: {at: {beta: 100.0}}", "methods: {<<: {at: {beta: 100.0}}}"))
    with pytest.raises(
        ParamsError, match=r"its layout leaves no room for defaults; write them out: .*methods\.at\.groups"
    ):
        full_text(path)


def test_the_experiment_of_the_documentation_is_whole(tmp_path: Path) -> None:
    example = (ROOT / "docs/parameters.md").read_text().split("```yaml\n")[1].split("```")[0]
    own_images(tmp_path)
    (tmp_path / "own.yaml").write_text(example.replace("/data/pets", str(tmp_path)))
    params = read_params(tmp_path / "own.yaml")
    assert [row.name for row in params.rows] == ["train/resnet34", "train/resnet34-sep", "distil/at/resnet34-sep"]
    assert params.dataset.classes == 3


@pytest.mark.parametrize("value", [None, True, -1, 10**400, "~nobody/x", "", "\0", [], [[]], [{"y": 1}], {}, {"x": {}}])
def test_a_wrong_value_anywhere_is_left_for_the_schema_to_name(value: Any) -> None:
    for path in places(short()):
        params = short(**{"__".join(path): value})
        with suppress(ParamsError):  # for what cannot be read from the disk; no other exception
            complete(params)


def test_completing_leaves_the_given_content_alone() -> None:
    given = short()
    before = copy.deepcopy(given)
    complete(given)
    assert given == before
