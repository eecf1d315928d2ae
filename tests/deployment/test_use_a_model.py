"""What was distilled is used: trained by each method, then predicting and exported, from the published file alone."""

import copy
import csv
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from benchmarks.separate_project import write_params
from moonshine import cli
from moonshine.data.loading import SmallImages
from moonshine.deployment.export import export
from moonshine.deployment.images import load_images
from moonshine.deployment.predict import predict
from moonshine.errors import CheckpointError, DataError, ParamsError
from moonshine.export.class_names import class_names
from moonshine.export.onnx_file import check_onnx, to_onnx
from moonshine.models.model_file import load_model, model_bytes
from moonshine.models.networks import initialise
from tests.support.project import run_moonshine, toy_params

STUDENT = "models/toy/distil/both/student/seed0.safetensors"


def wide_params() -> dict[str, Any]:
    """A wide ResNet and its student with a bottleneck, by knowledge distillation and by all at once."""
    params = toy_params()
    params["networks"] = {"teacher": {"arch": "wrn-10-1"}, "student": {"arch": "wrn-10-1", "conv": "BG(2,M)"}}
    params["methods"] = {
        "kd": {"alpha": 0.9, "temperature": 4.0},
        "both": {"alpha": 0.5, "temperature": 2.0, "beta": [1.0, 0.5], "groups": [2, 3], "form": "norm"},
    }
    params["distil"] = {"networks": ["student"], "methods": ["kd", "both"]}
    params["titles"] = {}
    params["tables"][0]["rows"] = ["train/teacher"]
    params["attention_maps"]["distilled"] = "distil/both/student/seed0"
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    write_params(folder, wide_params())
    run_moonshine("prepare", cwd=folder)
    run_moonshine("train", "teacher", "--seed", "0", cwd=folder)
    run_moonshine("distil", "--together", "--seed", "0", cwd=folder)
    for method in ("kd", "both"):
        run_moonshine("distil", f"{method}/student", "--seed", "0", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def digits(project: Path) -> Path:
    """Three validation images as PNG files, and what PyTorch says of them as the row was evaluated."""
    folder = project / "images"
    folder.mkdir()
    data = SmallImages(project / "data/digits", "val", torch.device("cpu"))
    for index in range(3):
        Image.fromarray(data.images[index, 0].numpy()).save(folder / f"{index}.png")
    network, _ = load_model(project / STUDENT)
    images, _ = next(data.evaluation_batches(3))
    with torch.inference_mode():
        np.save(folder / "logits.npy", network(images).numpy())
    return folder


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("kd", {"cross_entropy", "kd"}),
        ("both", {"cross_entropy", "kd", "attention_2", "attention_3"}),
    ],
)
def test_each_method_trains_and_its_parts_are_in_the_curve(project: Path, method: str, parts: set[str]) -> None:
    with (project / f"results/toy/curves/distil/{method}/student/seed0.csv").open() as file:
        first, last = csv.DictReader(file)
    others = {"epoch", "lr", "loss", "train_top1", "val_loss", "val_top1", "val_top5"}
    assert set(first) - others == parts
    assert all(float(first[part]) > 0 for part in parts)
    assert float(last["loss"]) < float(first["loss"])


def test_predict_needs_nothing_but_the_model(project: Path, digits: Path, tmp_path: Path) -> None:
    shutil.copy(project / STUDENT, tmp_path / "student.safetensors")
    for image in digits.glob("*.png"):
        shutil.copy(image, tmp_path)
    result = run_moonshine("predict", "student.safetensors", "0.png", "1.png", "2.png", cwd=tmp_path)
    logits = torch.from_numpy(np.load(digits / "logits.npy"))
    expected = []
    for index, probabilities in enumerate(logits.softmax(1)):
        best = probabilities.topk(5)
        expected.append(f"{index}.png")
        expected += [f"{100 * p:7.2f} %  {label}" for p, label in zip(best.values.tolist(), best.indices.tolist())]
    assert result.stdout.splitlines() == expected


def test_predict_shows_all_images_that_can_be_read(project: Path, digits: Path, tmp_path: Path) -> None:
    """Those that cannot are named at the end; no name is a command to the terminal."""
    (tmp_path / "page\x1b[2J.png").write_text("<html>not found</html>")
    shutil.copy(digits / "0.png", tmp_path / "0\x1b[2J.png")
    shutil.copy(digits / "1.png", tmp_path / "1.png")
    network, description = load_model(project / STUDENT)
    classes = [f"{name}\n\x1b[31m" for name in description["classes"]]
    (tmp_path / "it.safetensors").write_bytes(model_bytes(network, {**description, "classes": classes}))
    images = ("page\x1b[2J.png", "0\x1b[2J.png", "gone.png", "1.png")
    result = run_moonshine("predict", "it.safetensors", *images, cwd=tmp_path, check=False)
    assert result.returncode == 3
    lines = result.stdout.splitlines()
    assert (len(lines), lines[0], lines[6]) == (12, "0\\x1b[2J.png", "1.png")
    assert lines[1].endswith("\\n\\x1b[31m")
    assert [line.split(": c")[0] for line in result.stderr.splitlines()] == [
        "error: page\\x1b[2J.png",
        "error: gone.png",
    ]


def test_predict_ends_with_one_line_for_what_is_no_image(project: Path, tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html>not found</html>")
    result = run_moonshine("predict", str(project / STUDENT), "page.png", cwd=tmp_path, check=False)
    assert (result.returncode, result.stderr.count("\n")) == (3, 1)
    assert result.stderr.startswith("error: page.png: cannot be decoded")


def test_predict_takes_folders_and_shows_as_many_classes_as_asked_for(
    project: Path, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos/deeper").mkdir(parents=True)
    shutil.copy(digits / "0.png", tmp_path / "photos/deeper/b.PNG")
    shutil.copy(digits / "1.png", tmp_path / "photos/a.png")
    (tmp_path / "photos/notes.txt").write_text("not an image")
    result = run_moonshine("predict", str(project / STUDENT), "photos", "--top", "1", cwd=tmp_path)
    assert result.stdout.splitlines()[::2] == ["photos/a.png", "photos/deeper/b.PNG"]
    every = run_moonshine("predict", str(project / STUDENT), "photos/a.png", "--top", "99", cwd=tmp_path)
    assert len(every.stdout.splitlines()) == 1 + 10


def test_predict_refuses_a_folder_without_images(project: Path, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copy(digits / "0.png", tmp_path)
    result = run_moonshine("predict", str(project / STUDENT), "empty", "0.png", cwd=tmp_path, check=False)
    assert (result.returncode, result.stderr) == (3, "error: empty: a folder without images\n")
    assert result.stdout.startswith("0.png\n")


def test_predict_prints_json_for_programs(project: Path, digits: Path, tmp_path: Path) -> None:
    names = ["0.png", "a \x1b[2J\nname.png"]
    for index, name in enumerate(names):
        shutil.copy(digits / f"{index}.png", tmp_path / name)
    result = run_moonshine("predict", str(project / STUDENT), *names, "--json", "--top", "3", cwd=tmp_path)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["image"] for line in lines] == names
    for line, logits in zip(lines, torch.from_numpy(np.load(digits / "logits.npy"))):
        best = logits.softmax(0).topk(3)
        assert [each["class"] for each in line["classes"]] == [str(label) for label in best.indices.tolist()]
        assert [each["probability"] for each in line["classes"]] == pytest.approx(best.values.tolist(), rel=1e-4)


def test_what_is_odd_in_an_image_but_readable_is_no_warning(project: Path, tmp_path: Path) -> None:
    palette = Image.new("P", (12, 12))
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 128]))
    result = run_moonshine("predict", str(project / STUDENT), "palette.png", cwd=tmp_path)
    assert result.stderr == ""


def test_images_of_any_size_and_colour_are_taken(project: Path, tmp_path: Path) -> None:
    Image.new("RGB", (301, 40), (200, 30, 90)).save(tmp_path / "colour.jpg")
    Image.new("RGBA", (5, 7)).save(tmp_path / "alpha.png")
    _, description = load_model(project / STUDENT)
    assert load_images([tmp_path / "colour.jpg", tmp_path / "alpha.png"], description).shape == (2, 1, 12, 12)
    photographs = {**description, "input": [3, 32, 32], "preprocessing": {"shorter_side": 40, "crop": [32, 32]}}
    photographs["normalisation"] = {"mean": [0.5] * 3, "std": [0.2] * 3}
    assert load_images([tmp_path / "colour.jpg"], photographs).shape == (1, 3, 32, 32)


def test_small_images_of_another_size_are_scaled_as_prepare_scales_them(tmp_path: Path) -> None:
    """Pillow's bilinear filter to (height, width), each channel by its own mean and deviation."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "it.png")
    normalisation = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    description = {"input": [3, 12, 8], "preprocessing": {"resize": [12, 8]}, "normalisation": normalisation}
    (found,) = load_images([tmp_path / "it.png"], description)
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    (scaled,) = interpolate(whole, (12, 8), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(normalisation[key]).view(3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(found, (scaled / 255 - mean) / std, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("model", "image", "message"),
    [
        ("nowhere.safetensors", "fine.png", "nowhere.safetensors: no such model"),
        ("fine.png", "fine.png", "fine.png: not a readable safetensors file"),
        ("student.safetensors", "nowhere.png", "nowhere.png: cannot be read (No such file or directory)"),
        ("student.safetensors", "page.png", "page.png: cannot be decoded"),
        (
            "student.safetensors",
            "deep.png",
            "deep.png: has more than 8 bits per channel (mode I;16); convert it to 8 bits",
        ),
        ("student.safetensors", "cut.png", "cut.png: cannot be decoded"),
    ],
)
def test_what_is_no_model_or_no_image_is_named(
    project: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, image: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(project / STUDENT, "student.safetensors")
    shutil.copy(digits / "0.png", "fine.png")
    Path("page.png").write_text("<html>not found</html>")
    Image.new("I;16", (8, 8), 300).save("deep.png")
    Path("cut.png").write_bytes((digits / "0.png").read_bytes()[:60])
    with pytest.raises(DataError) as error:
        predict(Path(model), [Path(image)])
    assert str(error.value).startswith(message)


WRONG: dict[str, tuple[str, Any, str]] = {
    "too few classes": ("classes", ["a", "b"], "2 classes for a network of 10"),
    "classes that are no names": ("classes", list(range(10)), "classes.0: Input should be a valid string"),
    "a name that is a number": ("name", 7, "name: Input should be a valid string"),
    "normalisation of another type": ("normalisation", [0.5], "normalisation: Input should be a valid dictionary"),
    "normalisation of three channels": ("normalisation", {"mean": [0.5] * 3, "std": [1.0] * 3}, "not both for 1 chan"),
    "no deviation": ("normalisation", {"mean": [0.5], "std": [0]}, "std.0: Input should be greater than 0"),
    "a mean that is none": ("normalisation", {"mean": [float("nan")], "std": [1]}, "should be a finite number"),
    "a negative size": ("input", [1, -12, 12], "input.1: Input should be greater than or equal to 1"),
    "a size of terabytes": ("input", [1, 10**6, 10**6], "input.1: Input should be less than or equal to 8192"),
    "truths for sizes": ("input", [True, 12, 12], "input.0: Input should be a valid integer"),
    "images of another size": ("preprocessing", {"resize": [24, 24]}, "does not give images of 12 x 12"),
    "no preprocessing": ("preprocessing", {}, "does not give images of 12 x 12"),
    "an architecture that is a list": ("architecture", [], "architecture: Input should be a valid dictionary"),
}


@pytest.mark.parametrize(("key", "value", "reason"), WRONG.values(), ids=WRONG)
def test_a_description_that_cannot_be_true_is_refused(
    key: str, value: Any, reason: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the file's checksum is right."""
    network, description = load_model(project / STUDENT)
    (tmp_path / "it.safetensors").write_bytes(model_bytes(network, {**description, key: value}))
    with pytest.raises(DataError, match=rf"it.safetensors: its description is wrong \(.*{re.escape(reason)}"):
        load_model(tmp_path / "it.safetensors")


def test_a_crop_that_is_no_square_is_refused(project: Path, tmp_path: Path) -> None:
    network, description = load_model(project / STUDENT)
    crop = {"input": [1, 12, 10], "preprocessing": {"shorter_side": 14, "crop": [12, 10]}}
    (tmp_path / "it.safetensors").write_bytes(model_bytes(network, {**description, **crop}))
    with pytest.raises(DataError, match=r"its description is wrong \(.*JPEG images are squares"):
        load_model(tmp_path / "it.safetensors")


def test_commands_refuse_what_cannot_be_used_of_a_model_in_one_line(
    project: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, description = load_model(project / STUDENT)
    path, image = tmp_path / "it.safetensors", str(digits / "0.png")
    architecture = description["architecture"]
    too_small = {"architecture": {"arch": "vgg11", "classes": 10, "in_channels": 1}}
    halves = copy.deepcopy(network).half()
    infinite = copy.deepcopy(network)
    infinite.get_parameter("fc.bias").data.fill_(torch.inf)
    vgg = initialise(too_small["architecture"], 0)
    for content, code, reason in (
        (model_bytes(network, {**description, "classes": ["a"]}), 3, "its description is wrong"),
        (model_bytes(halves, description), 8, "is torch.float16, the network computes in torch.float32"),
        (model_bytes(infinite, description), 3, "its output is not finite"),
        (model_bytes(vgg, {**description, **too_small}), 8, "cannot take images of [1, 12, 12]"),
        (
            model_bytes(network, {**description, "architecture": {**architecture, "points": ["nowhere"]}}),
            8,
            "this version cannot build",
        ),
    ):
        path.write_bytes(content)
        for arguments in (("predict", str(path), image), ("export", str(path), "--images", image)):
            assert cli.main(arguments) == code
            error = capsys.readouterr().err
            assert error.startswith(f"error: {path}: "), error
            assert reason in error
            assert error.count("\n") == 1


def test_to_delete_is_advised_only_below_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("README.md", "models/toy/train/teacher.safetensors"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("no model")
    for path, cure in (
        ("README.md", "name a model of this project, or get it again"),
        ("", "name a model of this project, or get it again"),
        ("models/../README.md", "name a model of this project, or get it again"),
        ("models/toy/train/teacher.safetensors", "delete it and run its stage or `dvc pull`"),
    ):
        with pytest.raises(DataError) as error:
            load_model(Path(path))
        assert str(error.value).endswith(f"; {cure}")


def test_imagenets_classes_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of its wnids is not at hand here, so another one stands in for it."""
    wnids = [f"n{number:08d}" for number in range(1000)]
    assert class_names(wnids) == wnids, "a thousand other classes of WordNet are no tenches and goldfish"
    digest = hashlib.sha256("\n".join(wnids).encode()).hexdigest()
    monkeypatch.setattr("moonshine.export.class_names.ILSVRC2012", digest)
    names = class_names(wnids)
    assert (len(names), names[0], names[235]) == (1000, "tench", "German shepherd")
    assert class_names(wnids[::-1]) == wnids[::-1]
    assert class_names(wnids[:10]) == wnids[:10]


@pytest.fixture(scope="module")
def exported(project: Path) -> Path:
    result = run_moonshine("export", STUDENT, "--format", "onnx", cwd=project)
    assert "exports/toy/distil/both/student/seed0.onnx: " in result.stderr
    assert "of PyTorch's on 64 images" in result.stderr
    return project / "exports/toy/distil/both/student/seed0.onnx"


def test_an_exported_network_says_the_same(exported: Path, project: Path, digits: Path) -> None:
    """Fed as its own metadata describe, with a batch of another size than it was exported with."""
    session = onnxruntime.InferenceSession(str(exported))
    metadata = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    assert metadata["classes"] == [str(digit) for digit in range(10)]
    height, width = metadata["preprocessing"]["resize"]
    normalisation = metadata["normalisation"]
    images = [Image.open(digits / f"{index}.png").convert("L").resize((width, height)) for index in range(3)]
    scaled = np.stack([np.asarray(image, np.float32) / 255 for image in images])[:, None]
    fed = (scaled - np.float32(normalisation["mean"][0])) / np.float32(normalisation["std"][0])
    (logits,) = session.run(None, {session.get_inputs()[0].name: fed})
    np.testing.assert_allclose(logits, np.load(digits / "logits.npy"), atol=1e-4)


def test_an_exported_file_explains_itself_and_tells_nothing_of_this_machine(exported: Path, project: Path) -> None:
    proto = onnx.load(str(exported))
    assert "resize the whole image to 12 x 12" in proto.doc_string
    assert str(Path.home()).encode() not in exported.read_bytes()
    assert b".py" not in exported.read_bytes()


def test_an_export_that_differs_is_an_error(exported: Path, project: Path) -> None:
    """The same check as in the command, on a network that the file was not made from."""
    network, _ = load_model(project / STUDENT)
    samples, _ = next(SmallImages(project / "data/digits", "val", torch.device("cpu")).evaluation_batches(64))
    assert check_onnx(exported.read_bytes(), network, samples, exported) <= 1e-4
    with torch.no_grad():
        network.get_parameter("fc.bias")[0] += 0.01
    with pytest.raises(CheckpointError, match=r"logits differ from PyTorch's by .* of the largest, more than 1e-04"):
        check_onnx(exported.read_bytes(), network, samples, exported)
    with torch.no_grad():
        network.get_parameter("fc.bias")[0] = torch.nan
    with pytest.raises(DataError, match="its output is not finite"):
        check_onnx(exported.read_bytes(), network, samples, exported)


@pytest.mark.slow
def test_an_export_is_held_to_the_networks_own_rounding() -> None:
    """Also of an untrained EfficientNet, whose logits are of the order of 1e-13; one wrong weight is seen."""
    network = initialise({"arch": "efficientnet_b0", "classes": 10, "in_channels": 3}, 0).eval()
    samples = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    exported = to_onnx(network, samples, {}, "")
    assert check_onnx(exported, network, samples, Path("it")) < 1e-4
    with torch.no_grad():
        network.get_parameter("features.1.0.block.0.0.weight")[0, 0, 0, 0] += 0.1
    with pytest.raises(CheckpointError, match="logits differ from PyTorch's"):
        check_onnx(exported, network, samples, Path("it"))


def test_an_export_that_differs_is_not_written(
    project: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(*arguments: object) -> float:
        raise CheckpointError("differs")

    monkeypatch.setattr("moonshine.export.onnx_file.to_onnx", lambda *arguments: b"a network")
    monkeypatch.setattr("moonshine.export.onnx_file.check_onnx", differs)
    with pytest.raises(CheckpointError, match=r"^differs$"):
        export(project / STUDENT, tmp_path / "out.onnx", [digits / "0.png"], None)
    assert list(tmp_path.iterdir()) == []


def test_an_export_without_images_to_check_with_is_refused(project: Path, tmp_path: Path) -> None:
    shutil.copy(project / STUDENT, tmp_path / "student.safetensors")
    result = run_moonshine("export", "student.safetensors", cwd=tmp_path, check=False)
    assert result.returncode == 3
    assert "to check its export, name images of its kind: --images PATH..." in result.stderr
    assert not (tmp_path / "exports").exists()


def test_an_export_to_a_folder_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=f"^--output: {tmp_path} is a folder; name the file to write$"):
        export(Path("any.safetensors"), tmp_path, [], None)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("it.safetensors", "is the model itself; name another file"),
        ("link.onnx", "is the model itself; name another file"),
        ("models/toy/it.onnx", "is in models/, where only stages write; name a file elsewhere"),
        ("exports/../data/it.onnx", "is in data/, where only stages write; name a file elsewhere"),
    ],
)
def test_an_export_over_what_is_to_stay_is_refused_at_once(
    output: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("it.safetensors").write_text("a model")
    Path("link.onnx").symlink_to("it.safetensors")
    with pytest.raises(ParamsError, match=f"^--output: {output} {reason}$"):
        export(Path("it.safetensors"), Path(output), [], None)


@pytest.mark.parametrize("name", ["models/digits", "."])
def test_a_folder_is_no_damaged_model_to_delete(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(name)
    folder.mkdir(parents=True, exist_ok=True)
    for use in (lambda: predict(folder, []), lambda: export(folder, None, [], None)):
        with pytest.raises(ParamsError, match=rf"^{re.escape(name)}: is a folder; name a model file$"):
            use()


@pytest.mark.slow
def test_export_by_images_alone(project: Path, digits: Path, tmp_path: Path) -> None:
    shutil.copy(project / STUDENT, tmp_path / "student.safetensors")
    arguments = ("--images", str(digits / "0.png"), "--output", "out.onnx")
    result = run_moonshine("export", "student.safetensors", *arguments, cwd=tmp_path)
    assert "on 1 images" in result.stderr
    assert (tmp_path / "out.onnx").exists()
