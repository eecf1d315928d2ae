"""What is wrong with params.yaml is said in the docs' words, with the key, the reason and what was found."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import ROOT, load_params_dict, write_params
from moonshine.errors import ParamsError
from moonshine.params import read_params
from tests.support.project import run_moonshine, toy_params

NETWORKS = "networks.resnet18"
WRONG: list[tuple[str, object, str]] = [
    ("seeds", 3, "seeds: must be a list, for example [0, 1, 2], found 3"),
    ("seeds", ["a"], "seeds.0: must be an integer, found 'a'"),
    ("seeds", [1.5], "seeds.0: must be an integer, found 1.5"),
    ("seeds", [-1], "seeds.0: must be at least 0, found -1"),
    ("seeds", [], "seeds: must have at least 1 value, has 0"),
    ("seeds", [2, 0, 2], "seeds: duplicate entry 2"),
    ("recipe.epochs", "ten", "recipe.epochs: must be an integer, found 'ten'"),
    ("recipe.batch_size", 2**31, "recipe.batch_size: must be below 2,147,483,648, found 2147483648"),
    ("recipe.lr", "fast", "recipe.lr: must be a number, found 'fast'"),
    ("recipe.lr", True, "recipe.lr: must be a number, found true"),
    ("recipe.lr", 0, "recipe.lr: must be above 0, found 0"),
    ("recipe.lr", math.inf, "recipe.lr: must be a finite number, found inf"),
    ("recipe.precision", "fp16", "recipe.precision: must be one of float32, tf32, bfloat16, float16, found 'fp16'"),
    ("recipe.compile", "yes", "recipe.compile: must be true or false, found 'yes'"),
    ("networks", ["a"], "networks: must be a mapping of keys to values, found ['a']"),
    (NETWORKS, 5, f"{NETWORKS}: must be a mapping of keys to values, found 5"),
    (f"{NETWORKS}.arch", 5, f"{NETWORKS}.arch: must be text, found 5"),
    (f"{NETWORKS}.arch", "resnet17", f'{NETWORKS}: arch: unknown architecture "resnet17" (did you mean "resnet18"?)'),
    (
        f"{NETWORKS}.block",
        "basic",
        f"{NETWORKS}: block: only valid for wide ResNets such as wrn-40-2, not",
    ),
    (f"{NETWORKS}.convs", ["G(N)"] * 7, f"{NETWORKS}: convs: 7 given, but resnet18 has 8 residual blocks"),
    (f"{NETWORKS}.convs", "G(N)", f"{NETWORKS}.convs: must be a list, for example [one, two], found 'G(N)'"),
    (
        f"{NETWORKS}.convs",
        ["S", "g(n)"],
        f'{NETWORKS}: convs.1: unknown convolution "g(n)" (did you mean "G(N)"?)',
    ),
    (
        NETWORKS,
        {"arch": "vgg11", "convs": ["S"]},
        f"{NETWORKS}: convs: only valid for resnet18, resnet34 and wide ResNets, not for vgg11",
    ),
    (
        NETWORKS,
        {"arch": "resnet50", "convs": ["S"] * 16},
        f"{NETWORKS}: convs: only valid for resnet18, resnet34 and wide ResNets, not for resnet50",
    ),
    (
        NETWORKS,
        {"arch": "resnet18", "conv": "S", "convs": ["S"] * 8},
        f"{NETWORKS}: conv: not with convs, which decides it for each block; leave out either",
    ),
    (
        NETWORKS,
        {"arch": "wrn-10-2", "block": "single", "convs": ["B(2)"] * 3},
        f"{NETWORKS}: block: not with convs, which decides it for each block; leave out either",
    ),
    (f"{NETWORKS}.channels", [1], f"{NETWORKS}.channels: must have at least 4 values, has 1"),
    (f"{NETWORKS}.points", ["a", "a"], f"{NETWORKS}: points: duplicate entry"),
    ("methods.kd-at.beta", "x", "methods.kd-at.beta: must be a number, found 'x'"),
    ("methods.kd-at.beta", -1, "methods.kd-at.beta: must be at least 0, found -1"),
    ("methods.kd-at.beta", ["x"], "methods.kd-at.beta.0: must be a number, found 'x'"),
    (
        "experiment",
        "A B",
        "experiment: must be of lower-case letters, digits, - and _, and begin",
    ),
    ("experiment", "a" * 61, "experiment: must have at most 60 characters, found"),
    ("tables", 3, "tables: must be a list, found 3"),
    ("machine", {"device": "gpu"}, "machine.device: must be one of auto, cpu, cuda, found 'gpu'"),
    ("machine", {"trainings_per_gpu": 0}, "machine.trainings_per_gpu: must be at least 1, found 0"),
    ("machine", {"trainings_per_gpu": 1.5}, "machine.trainings_per_gpu: must be an integer, found 1.5"),
    ("machine", {"jobs": {"trian": {}}}, "machine.jobs.trian: must be one of prepare, fetch, train, distil, search,"),
    ("attention_maps.images", list(range(13)), "attention_maps.images: must have at most 12 values, has 13"),
    ("train", ["resnet81"], 'train: unknown network "resnet81" (did you mean "resnet18"?)'),
    ("sedes", [0], 'sedes: unknown key (did you mean "seeds"?)'),
]


def changed(key: str, value: object) -> dict[str, Any]:
    params = load_params_dict(ROOT / "params.yaml")
    section = params
    *sections, last = key.split(".")
    for name in sections:
        section = section[name]
    section[last] = value
    return params


@pytest.mark.parametrize(("key", "value", "line"), WRONG, ids=[f"{key}-{value}"[:40] for key, value, _ in WRONG])
def test_a_wrong_value_is_told_in_plain_words(key: str, value: object, line: str, tmp_path: Path) -> None:
    write_params(tmp_path, changed(key, value))
    with pytest.raises(ParamsError) as caught:
        read_params(tmp_path / "params.yaml")
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{tmp_path / 'params.yaml'}: {line}")
    assert "Input should" not in str(caught.value)


def test_a_missing_key_is_named_with_those_that_can_be_there(tmp_path: Path) -> None:
    params = load_params_dict(ROOT / "params.yaml")
    del params["recipe"]["lr"]
    write_params(tmp_path, params)
    with pytest.raises(ParamsError, match=r"recipe\.lr: missing key; keys here are epochs, batch_size, lr"):
        read_params(tmp_path / "params.yaml")


def test_a_convolution_without_quotes_within_braces_is_recognised(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    written = re.sub(r"^networks:$", "networks:\n  cheap: {arch: resnet34, conv: BG(2,M)}", text, flags=re.MULTILINE)
    (tmp_path / "params.yaml").write_text(written)
    with pytest.raises(ParamsError, match=r'networks\.cheap\.M\): unknown key; within braces, .* conv: "BG\(2,M\)"'):
        read_params(tmp_path / "params.yaml")


def warnings_of(params: dict[str, Any], folder: Path) -> list[str]:
    write_params(folder, params)
    result = run_moonshine("check", cwd=folder)
    return [line for line in result.stderr.splitlines() if line.startswith("warning: ")]


def test_check_warns_of_what_was_probably_not_meant(tmp_path: Path) -> None:
    params = load_params_dict(ROOT / "params.yaml")
    assert warnings_of(params, tmp_path) == []
    params["networks"]["spare"] = {"arch": "resnet18"}
    params["train"].append("resnet34-b2")
    params["networks"]["resnet34-b2"] = {"arch": "resnet34", "conv": "B(2)"}
    params["networks"]["published"] = {"arch": "resnet18"}
    params["fetch"]["published"] = {"url": "gone.pth", "sha256": "0" * 64}
    params["tables"][0]["rows"].append("fetch/published")
    assert warnings_of(params, tmp_path) == [
        "warning: params.yaml: networks.spare: no row is made from it, so it is never trained",
        "warning: params.yaml: tables: train/resnet34-b2 is in no table",
        "warning: params.yaml: fetch.published.url: no file gone.pth on this machine",
    ]


def test_check_warns_of_networks_that_a_gpu_does_not_train_to_the_same_bytes(tmp_path: Path) -> None:
    params = load_params_dict(ROOT / "experiments" / "imagenette.yaml")
    params["networks"]["vgg"], params["networks"]["vit"] = {"arch": "vgg11"}, {"arch": "vit_b_32"}
    params["dataset"] |= {"size": 224, "evaluation": {"resize": 256}}  # which the transformer takes
    params["train"] += ["vgg", "vit"]
    params["tables"][0]["rows"] += ["train/vgg", "train/vit"]
    assert warnings_of(params, tmp_path) == []
    params["machine"] = {"device": "cuda"}
    varies = "differs from run to run, so a resumed training may end with other bytes"
    here = [line for line in warnings_of(params, tmp_path) if "machine.device: cuda, but" not in line]
    assert here == [
        f"warning: params.yaml: networks.vgg: on a GPU the gradient of its AdaptiveAvgPool2d {varies}",
        f"warning: params.yaml: networks.vit: on a GPU the gradient of its MultiheadAttention {varies}",
    ]


@pytest.mark.parametrize("experiment", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_experiments_give_no_warnings(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has what they ask for."""
    from moonshine.checks.likely import likely_mistakes

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert list(likely_mistakes(read_params(experiment))) == []


@pytest.mark.parametrize("section", ["fetch", "fetch_teacher"])
def test_a_start_with_weights_of_another_normalisation_is_warned_of(section: str, tmp_path: Path) -> None:
    params = toy_params()
    checkpoint = {"url": "net.pth", "sha256": "0" * 64, "normalisation": {"mean": [0.5], "std": [0.5]}}
    params[section] = {"teacher": checkpoint | ({"classes": 7} if section == "fetch_teacher" else {})}
    params["networks"]["student"]["init"] = "teacher"
    params.update(teacher="fetch/teacher", train=[], train_from_teacher=["student"], titles={})
    params["tables"][0]["rows"] = ["distil/at/student"]
    params["attention_maps"].update(scratch="train/student/seed0")
    write_params(tmp_path, params)
    said = run_moonshine("check", cwd=tmp_path).stderr
    assert (
        f"warning: params.yaml: networks.student.init: the teacher's weights were trained with {section}.teacher."
        "normalisation, but student sees the data set's normalisation; if it learns worse than without init, leave "
        "init out\n"
    ) in said
    del params[section]["teacher"]["normalisation"]
    write_params(tmp_path, params)
    assert "normalisation" not in run_moonshine("check", cwd=tmp_path).stderr
