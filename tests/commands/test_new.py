"""`moonshine new`: from a folder of photographs to an experiment, and from that to results."""

import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from benchmarks.separate_project import ROOT, load_params_dict
from moonshine.commands.new import estimate
from moonshine.commands.new.choices import Request, choose, network_names
from moonshine.commands.new.found import what_looks_wrong
from moonshine.commands.new.survey import Survey
from moonshine.commands.new.weights import find_weights
from moonshine.errors import MachineError
from moonshine.inputs.pinned import pinned_file
from moonshine.models.networks import initialise
from moonshine.params import read_params
from moonshine.params.schema import Machine, PinnedFile
from moonshine.preparation.layouts import ImageFile, Layout
from moonshine.runtime.files import sha256
from tests.support.photographs import CLASSES, draw_photographs
from tests.support.project import copy_project, files_below, run, run_moonshine, toy_params

NETWORKS = ("--teacher", "wrn-10-1", "--students", "G(N)")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photographs(tmp_path_factory.mktemp("photographs") / "flowers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the command runs."""
    (tmp_path / "project/experiments").mkdir(parents=True)
    return tmp_path / "project"


def new(folder: Path, images: Path, *options: str, name: str = "flowers") -> dict[str, Any]:
    """The experiment that the command writes."""
    run_moonshine("new", name, "--images", str(images), *NETWORKS, "--no-estimate", *options, cwd=folder)
    return load_params_dict(folder / f"experiments/{name}.yaml")


def refusal(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines of a command that writes nothing."""
    before = files_below(folder)
    result = run_moonshine("new", *arguments, "--no-estimate", cwd=folder, check=False)
    assert files_below(folder) == before
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return result.returncode, [line.removeprefix("error: ") for line in lines]


def test_it_says_what_it_found_and_chose_and_writes_what_use_accepts(folder: Path, photographs: Path) -> None:
    result = run_moonshine(
        "new", "flowers", "--images", str(photographs), *NETWORKS, "B(2)", "wrn-10-2", "--no-estimate", cwd=folder
    )
    for line in (
        "  train/ and val/, each with a folder per class",
        "  8 classes: anemone, buttercup, crocus, daisy, foxglove, iris, lily, tulip",
        "  48 training images, 6 per class, and 16 validation images",
        "  shorter sides of 36 pixels",
        "  32 JPEG, 16 CMYK JPEG, 16 PNG named .jpg; all in colour",
        "  8 of them stored turned, with an EXIF orientation",
        "  16 validation images: one of them is 6.2 points of error",
        "  moonshine use flowers",
    ):
        assert line in result.stdout.splitlines()
    path = folder / "experiments/flowers.yaml"
    written = load_params_dict(path)
    assert written["dataset"]["exif_orientation"] is True
    assert written["dataset"]["licensed"] == ["flowers"]
    assert written["attention_maps"]["images"] == []
    assert written["machine"]["raw_data"] == {"folder": str(photographs)}
    assert [row.name for row in read_params(path).rows] == [
        *(f"train/{name}" for name in ("wrn-10-1", "wrn-10-1-gn", "wrn-10-1-b2", "wrn-10-2")),
        *(f"distil/at/{name}" for name in ("wrn-10-1-gn", "wrn-10-1-b2", "wrn-10-2")),
    ]
    run_moonshine("use", "flowers", cwd=folder)
    assert load_params_dict(folder / "params.yaml")["networks"] == written["networks"]
    run_moonshine("check", cwd=folder)


def test_the_file_can_be_made_again_with_the_command_in_it(folder: Path, photographs: Path) -> None:
    options = ("--size", "32", "--epochs", "3", "--shared", "--show-images", "--validation-share", "0.25")
    new(folder, photographs / "train", *options, name="one")
    text = (folder / "experiments/one.yaml").read_text()
    command = text.splitlines()[1].removeprefix("#     ")
    (folder / "experiments/one.yaml").unlink()
    run_moonshine(*shlex.split(command)[1:], "--no-estimate", cwd=folder)
    assert (folder / "experiments/one.yaml").read_text() == text


def test_validation_images_of_different_classes_are_shown_only_if_asked_for(folder: Path, photographs: Path) -> None:
    assert new(folder, photographs, "--show-images")["attention_maps"]["images"] == [0, 2, 4, 8, 10, 14]


def as_csv(photographs: Path, root: Path) -> None:
    images = sorted(path for path in photographs.rglob("*.jpg"))
    lines = [f"{path.relative_to(photographs)},{path.parent.name},{path.parts[-3]}" for path in images]
    shutil.copytree(photographs, root)
    (root / "labels.csv").write_text("\n".join(["path,label,split", *lines]))


def as_shards(photographs: Path, root: Path) -> None:
    (root / "data").mkdir(parents=True)
    for split, name in (("train", "train"), ("val", "validation")):
        paths = sorted((photographs / split).rglob("*.jpg"))
        table = pa.table(
            {
                "image": [{"bytes": path.read_bytes(), "path": f"{path.parent.name}-{path.name}"} for path in paths],
                "label": [CLASSES.index(path.parent.name) for path in paths],
            }
        )
        pq.write_table(table, root / f"data/{name}-00000-of-00001.parquet")


@pytest.mark.parametrize("layout", ["class folders", "csv", "shards"])
def test_every_layout_of_the_source_can_be_given(layout: str, folder: Path, photographs: Path, tmp_path: Path) -> None:
    root = tmp_path / "images"
    if layout == "class folders":
        written = new(folder, photographs / "train")["dataset"]
        assert written["validation_share"] == 0.2
    elif layout == "csv":
        as_csv(photographs, root)
        code, lines = refusal(folder, "a", "--images", str(root), *NETWORKS, "--labels", "../labels.csv")
        assert (code, lines) == (2, [f"--labels ../labels.csv: not in {root}; move it there"])
        written = new(folder, root, "--labels", str(root / "labels.csv"))["dataset"]
        assert written["labels"] == "labels.csv"
    else:
        as_shards(photographs, root)
        written = new(folder, root)["dataset"]
    assert (written["classes"], written["exif_orientation"]) == (8, True)


def test_grey_photographs_are_one_channel(folder: Path, tmp_path: Path) -> None:
    written = new(folder, draw_photographs(tmp_path / "grey", classes=2, grey=True))
    assert written["dataset"]["channels"] == 1
    assert written["tables"][0]["columns"] == ["parameters", "macs", "top1"], "two classes have no five best"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Flowers", *NETWORKS), '"Flowers": not a name for an experiment; use lower-case letters, digits, - and _'),
        (("a", "--teacher", "resnet19", "--students", "G(N)"), '--teacher: unknown architecture "resnet19" (did you'),
        (
            ("a", "--teacher", "resnet18", "--students", "g[n]"),
            '--students: unknown convolution "g[n]" (did you mean "G',
        ),
        (("a", "--teacher", "resnet18", "--students", "gn"), '--students: "gn" is neither a convolution nor an archit'),
        (("a", "--teacher", "resnet18", "--students", "resnet18"), "--students resnet18: is the teacher"),
        (("a", *NETWORKS, "G(N)"), "--students G(N): is given twice"),
        (
            ("a", "--teacher", "vit_b_16", "--students", "resnet18"),
            "--teacher vit_b_16: Moonshine does not know where ",
        ),
        (
            ("a", "--teacher", "resnet18", "--students", "vgg16"),
            "--students vgg16: has 5 attention points, the teacher ",
        ),
        (
            ("a", "--teacher", "resnet18", "--students", "G(7)"),
            "resnet18 with G(7): layer layer1.0.conv1: G(7): 64 chan",
        ),
        (
            ("a", "--teacher", "vgg11", "--students", "G(N)", "--size", "16"),
            "networks.vgg11: cannot take images of 3 x ",
        ),
        (("a", *NETWORKS, "--validation-share", "0.1"), "has a validation split of its own; leave out"),
    ],
)
def test_a_wrong_request_is_one_line(arguments: tuple[str, ...], message: str, folder: Path, photographs: Path) -> None:
    code, lines = refusal(folder, *arguments, "--images", str(photographs))
    assert code == (3 if "split" in message else 2)
    assert message in lines[0]


def test_an_experiment_that_exists_is_never_overwritten(folder: Path, photographs: Path) -> None:
    (folder / "experiments/a.yaml").write_text("mine\n")
    code, lines = refusal(folder, "a", "--images", str(photographs), *NETWORKS)
    assert (code, lines) == (
        2,
        ["experiments/a.yaml: exists already and is not overwritten; choose another name, or delete it"],
    )


def nothing(root: Path) -> str:
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "val")
    return "no images found"


def one_class(root: Path) -> str:
    for split in ("train", "val"):
        for name in CLASSES[1:]:
            shutil.rmtree(root / split / name)
    return "has only one class, 'anemone'"


def one_image(root: Path) -> str:
    for path in list((root / "val/lily").iterdir())[1:]:
        path.unlink()
    shutil.rmtree(root / "train")
    for path in (root / "val").iterdir():
        path.rename(root / path.name)
    (root / "val").rmdir()
    return "class 'lily' has one image"


def a_copy(root: Path) -> str:
    shutil.copy(root / "train/iris/003.jpg", root / "val/lily/copy.jpg")
    return f"{root}/val/lily/copy.jpg: is a copy of the training image {root}/train/iris/003.jpg; networks would be"


@pytest.mark.parametrize("spoil", [nothing, one_class, one_image, a_copy])
def test_images_that_prepare_would_refuse_are_refused_in_one_line(spoil: Any, folder: Path, tmp_path: Path) -> None:
    root = draw_photographs(tmp_path / "images")
    message = spoil(root)
    code, lines = refusal(folder, "a", "--images", str(root), *NETWORKS)
    assert (code, len(lines)) == (3, 1)
    assert message in lines[0]


def test_all_files_that_are_no_usable_images_are_named_at_once(folder: Path, tmp_path: Path) -> None:
    root = draw_photographs(tmp_path / "images")
    (root / "train/iris/notes.txt").write_text("not an image")
    (root / "val/lily/empty.jpg").touch()
    deep = np.zeros((40, 40), np.uint16)
    Image.fromarray(deep).save(root / "val/lily/deep.png")
    code, lines = refusal(folder, "a", "--images", str(root), *NETWORKS)
    assert code == 3
    assert lines == [
        "3 of 67 files cannot be used; fix, move or delete them:",
        f"{root}/train/iris/notes.txt: not an image that Pillow can read",
        f"{root}/val/lily/deep.png: has more than 8 bits per channel (mode I;16); convert it to 8 bits",
        f"{root}/val/lily/empty.jpg: not an image that Pillow can read",
    ]


def survey_of(images: int, side: int = 300, classes: int = 10, ratio: float = 1.0) -> Survey:
    """What looking at so many photographs would find, a fifth of them for validation."""
    counts = {"train": images, "val": images // 5}
    files = {split: [ImageFile("", "", index % classes) for index in range(count)] for split, count in counts.items()}
    layout = Layout("drawn", [f"class {label}" for label in range(classes)], files, 0, {})
    sides = np.tile([side, round(ratio * side)], (sum(counts.values()), 1))
    return Survey(layout, sides, Counter(JPEG=len(sides)), grey=0, turned=0, sample=[])


def choices(survey: Survey, teacher: str = "resnet34", **asked: Any) -> dict[str, Any]:
    request = Request("photos", Path("/photos"), teacher, ["G(N)"], **asked)
    return choose(request, survey, None, cpus=8, has_gpu=False).params


@pytest.mark.parametrize(
    ("teacher", "size", "experiment"),
    [("resnet34", 224, "imagenet"), ("resnet34", 128, "imagenette"), ("wrn-40-2", 32, "cifar10")],
)
def test_beta_is_that_of_the_experiments_with_maps_of_the_same_size(teacher: str, size: int, experiment: str) -> None:
    known = load_params_dict(ROOT / f"experiments/{experiment}.yaml")["methods"]["at"]
    chosen = choices(survey_of(1000), teacher, size=size)["methods"]["at"]
    assert chosen["groups"] == known["groups"]
    assert chosen["beta"] == pytest.approx(known["beta"], rel=0.01)


@pytest.mark.parametrize("images", [20, 33, 200, 1000, 9469, 100_000])
def test_epochs_and_batches_fit_the_number_of_images(images: int) -> None:
    recipe = choices(survey_of(images, classes=4))["recipe"]
    steps = -(-images // recipe["batch_size"]) * recipe["epochs"]
    assert 30 <= recipe["epochs"] <= 200
    assert steps >= 4000 or recipe["epochs"] == 200
    assert images % recipe["batch_size"] != 1, "batch norm would see a single image"
    assert recipe["lr"] == pytest.approx(0.1 * recipe["batch_size"] / 128, rel=0.01)
    assert all(0 < step < recipe["epochs"] for step in recipe["lr_steps"])


def test_the_size_is_what_half_of_the_images_have() -> None:
    assert [choices(survey_of(500, side))["dataset"]["size"] for side in (8, 40, 100, 1000)] == [32, 32, 96, 224]


def test_small_images_get_a_stem_that_keeps_them_and_large_ones_are_scaled_once() -> None:
    small, large = choices(survey_of(500, 32)), choices(survey_of(500, 3000))
    assert small["networks"]["resnet34"] == {"arch": "resnet34", "stem": "3x3"}
    assert "resize" not in small["dataset"]
    assert large["networks"]["resnet34"] == {"arch": "resnet34"}
    assert large["dataset"]["resize"] == 448


def test_networks_without_batch_norm_get_a_lower_learning_rate() -> None:
    with_norm, without = (choices(survey_of(10_000), name)["recipe"]["lr"] for name in ("vgg11_bn", "vgg11"))
    assert with_norm == 10 * without


def test_students_are_named_after_their_convolutions() -> None:
    names = network_names("resnet18", ["G(N)", "B(2)", "G(4)", "G(N/8)", "BG(2,M/8)", "BG(2,4)", "S-2x2", "resnet34"])
    assert list(names)[1:] == [
        *(f"resnet18-{conv}" for conv in ("gn", "b2", "g4", "gn8", "bg2-m8", "bg2-4", "s-2x2")),
        "resnet34",
    ]


@pytest.mark.parametrize(
    ("found", "size", "warning"),
    [
        (survey_of(1000, side=100), 224, "100% of the images have less than 256 pixels and are enlarged"),
        (survey_of(1000, ratio=2.5), 224, "half of the images are at least 2.5 times as long as wide"),
        (survey_of(300), 224, "10 classes have fewer than 50 training images"),
    ],
)
def test_what_looks_wrong_is_said(found: Survey, size: int, warning: str) -> None:
    assert any(line.startswith(warning) for line in what_looks_wrong(found, size, round(size * 256 / 224)))


def test_lopsided_classes_are_said(tmp_path: Path, folder: Path) -> None:
    root = draw_photographs(tmp_path / "images", classes=2, train=30)
    for path in sorted((root / "train/anemone").iterdir())[3:]:
        path.unlink()
    result = run_moonshine("new", "a", "--images", str(root), *NETWORKS, "--no-estimate", cwd=folder)
    assert "  buttercup has 30 training images and anemone 3: errors are means over images" in result.stdout


def test_the_time_is_estimated_from_steps_of_every_row(folder: Path, photographs: Path) -> None:
    options = ("--images", str(photographs), *NETWORKS, "--size", "32", "--epochs", "2")
    result = run_moonshine("new", "flowers", *options, cwd=folder)
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("Time: "))
    assert line.startswith("Time: about ")
    assert "under dvc repro; the longest training is " in line


def test_a_step_that_fails_costs_only_the_estimate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def fail(*_: object) -> None:
        raise MachineError("out of memory")

    monkeypatch.setattr(estimate, "estimate", fail)
    lines = estimate.time_lines(read_params(ROOT / "experiments/imagenette.yaml"), survey_of(1000), 1)
    assert lines == ["Time: not estimated, because a training step failed here: out of memory"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published wrn-10-1 of 100 classes."""
    path = tmp_path_factory.mktemp("weights") / "wrn-10-1.pth"
    torch.save(initialise({"arch": "wrn-10-1", "classes": 100, "in_channels": 3}, 0).state_dict(), path)
    return path


def test_weights_are_pinned_for_the_teacher_and_handed_on(folder: Path, photographs: Path, weights: Path) -> None:
    written = new(folder, photographs, "--weights", str(weights), "--students", "G(N)", "wrn-10-2")
    teacher, cheap, other = written["networks"].values()
    assert teacher["init"] == {"url": str(weights), "sha256": sha256(weights)}
    assert teacher["recipe"]["epochs"] < written["recipe"]["epochs"]
    assert teacher["recipe"]["lr"] == pytest.approx(written["recipe"]["lr"] / 10)
    assert (cheap["init"], "init" in other) == ("teacher", False)
    assert (written["train"], written["train_from_teacher"]) == (["wrn-10-1", "wrn-10-2"], ["wrn-10-1-gn"])


def test_weights_for_grey_images_keep_them_grey(folder: Path, tmp_path: Path) -> None:
    torch.save(initialise({"arch": "wrn-10-1", "classes": 5, "in_channels": 1}, 0).state_dict(), tmp_path / "grey.pth")
    photographs = draw_photographs(tmp_path / "grey", classes=2, grey=True)
    assert new(folder, photographs, "--weights", str(tmp_path / "grey.pth"))["dataset"]["channels"] == 1


@pytest.mark.parametrize(
    ("teacher", "given", "code", "message"),
    [
        ("wrn-16-1", "{weights}", 8, "{weights}: does not fit the network: "),
        ("wrn-10-1", "{folder}/no.pth", 2, "--weights {folder}/no.pth: no such file"),
        ("wrn-10-1", "{folder}/note.pth", 3, "{folder}/note.pth: not a PyTorch checkpoint"),
        ("wrn-10-1", "DEFAULT", 2, "--weights DEFAULT: torchvision publishes no weights for wrn-10-1; name a file"),
        ("wrn-10-1", "ftp://example.org/a.pth", 2, "--weights: "),
    ],
)
def test_weights_that_cannot_be_used_are_one_line(
    teacher: str, given: str, code: int, message: str, folder: Path, photographs: Path, weights: Path
) -> None:
    (folder / "note.pth").write_text("not weights")
    names = {"weights": weights, "folder": folder}
    asked = ("a", "--images", str(photographs), "--teacher", teacher, "--students", "G(N)")
    found, lines = refusal(folder, *asked, "--weights", given.format(**names))
    assert (found, len(lines)) == (code, 1)
    assert lines[0].startswith(message.format(**names))


def test_published_weights_are_downloaded_once_under_the_name_that_trainings_look_for(
    folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(url: str, path: Path, check: Callable[[Path], None], seconds: float) -> None:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(weights, path)
        check(path)

    monkeypatch.chdir(folder)
    monkeypatch.setattr("moonshine.commands.new.weights.download", serve)
    found = find_weights("https://example.org/weights.pth", "wrn-10-1")
    monkeypatch.setattr("moonshine.inputs.download.download", None)
    assert found.sha256 == sha256(weights)
    assert pinned_file(PinnedFile(**found.pin), Machine(), "networks.teacher.init") == found.path


def finished(tmp_path: Path, photographs: Path, *engine: str, options: tuple[str, ...] = ()) -> Path:
    """A project in which the experiment that `new` wrote has run."""
    project = copy_project(tmp_path / "project", toy_params())
    (project / "experiments").mkdir()
    new(project, photographs, "--epochs", "1", "--size", "16", *options)
    run_moonshine("use", "flowers", cwd=project)
    run(*engine, cwd=project)
    return project


@pytest.mark.slow
def test_from_photographs_to_a_table_a_prediction_and_an_onnx_file(tmp_path: Path, photographs: Path) -> None:
    project = finished(tmp_path, photographs, "snakemake", "--cores", "2")
    page = (project / "results/flowers/README.md").read_text()
    assert all(f"| {title} " in page for title in ("wrn-10-1", "wrn-10-1 G(N)", "wrn-10-1 G(N) + AT"))
    assert not list((project / "results/flowers").rglob("*attention*.png"))
    model = "models/flowers/distil/at/wrn-10-1-gn/seed0.safetensors"
    predicted = run_moonshine("predict", model, str(photographs / "val/iris"), "--json", cwd=project).stdout
    classes = {each["class"] for line in predicted.splitlines() for each in yaml.safe_load(line)["classes"]}
    assert len(predicted.splitlines()) == 2
    assert classes <= set(CLASSES)
    run_moonshine("export", model, cwd=project)
    assert (project / "exports/flowers/distil/at/wrn-10-1-gn/seed0.onnx").stat().st_size > 10_000


@pytest.mark.slow
def test_dvc_runs_it_as_well_from_given_weights(tmp_path: Path, photographs: Path, weights: Path) -> None:
    project = finished(tmp_path, photographs, "dvc", "repro", options=("--weights", str(weights)))
    assert len(files_below(project / "models", ".safetensors")) == 3
    assert "data/flowers" not in run("dvc", "push", "--dry", cwd=project, check=False).stdout
