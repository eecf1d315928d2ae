"""A model of one's own grey, turned photographs: prepared, trained, evaluated, predicting and exported."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from benchmarks.separate_project import write_params
from moonshine.data.jpeg_images import JpegImages
from moonshine.deployment.images import load_images
from moonshine.images.decoding import UPRIGHT
from moonshine.images.store import Split
from moonshine.models.model_file import load_model
from tests.support.imagenet_archives import jpeg_params
from tests.support.layouts import CLASSES, pictures, write_files
from tests.support.project import run_moonshine

MODEL = "models/toy/train/teacher/seed0.safetensors"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write_files(folder / "raw", pictures())
    params = jpeg_params("folder", folder / "raw", len(CLASSES), channels=1, exif_orientation=True)
    params["recipe"]["batch_size"] = 5
    params["machine"]["workers"] = 0
    params["attention_maps"]["images"] = [0]
    write_params(folder, params)
    run_moonshine("prepare", cwd=folder)
    run_moonshine("train", "teacher", "--seed", "0", cwd=folder)
    return folder


def test_networks_see_one_channel(project: Path) -> None:
    """Exactly one, whatever the photographs are."""
    network, description = load_model(project / MODEL)
    assert (description["input"], network.get_parameter("conv1.weight").shape[1]) == ([1, 24, 24], 1)
    data = JpegImages(project / "data/folder", "train", CPU, 0)
    images, _ = next(data.evaluation_batches(len(data)))
    assert images.shape[1:] == (1, 24, 24)


def test_a_grey_model_is_evaluated(project: Path) -> None:
    run_moonshine("evaluate", "train/teacher", cwd=project)
    metrics = json.loads((project / "results/toy/metrics/train/teacher.json").read_text())
    assert metrics["n"] == 3


def test_images_are_turned_for_the_model_as_they_were_in_training(project: Path) -> None:
    """An upright and a turned file of the same pixels look the same to the model, and it says that it turns them."""
    picture = Image.open(project / "raw/cat/3.jpg").convert("RGB")
    picture.save(project / "upright.png")
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    for orientation in UPRIGHT:
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = picture.transpose(back.get(orientation, UPRIGHT[orientation]))
        turned.save(project / f"turned{orientation}.png", exif=exif)
    paths = [project / "upright.png", *(project / f"turned{each}.png" for each in UPRIGHT)]
    _, description = load_model(project / MODEL)
    images = load_images(paths, description)
    assert torch.equal(images, images[:1].expand_as(images))
    shown = run_moonshine("predict", MODEL, *(path.name for path in paths), cwd=project)
    assert "turned upright by their EXIF orientation first" in shown.stderr
    answers = [text.split("\n", 1)[1] for text in shown.stdout.split("turned")]
    assert len(answers) == 8
    assert len(set(map(str.strip, answers))) == 1


@pytest.mark.slow
def test_a_grey_model_is_exported_with_what_its_input_is(project: Path, tmp_path: Path) -> None:
    run_moonshine("export", MODEL, "--images", "raw/dog/0.jpg", "--output", str(tmp_path / "it.onnx"), cwd=project)
    exported = onnx.load(str(tmp_path / "it.onnx"))
    assert "(batch, 1, 24, 24), from grey pixels: turn upright by EXIF orientation, resize" in exported.doc_string
    session = onnxruntime.InferenceSession(str(tmp_path / "it.onnx"))
    network, description = load_model(project / MODEL)
    images = load_images([project / "raw/dog/1.jpg"], description)
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(logits, network(images).numpy(), atol=1e-4)


def test_grey_pixels_are_those_of_pillow(project: Path) -> None:
    """Training and evaluation decode what `predict` decodes; the colours of an image become its luma."""
    data = JpegImages(project / "data/folder", "val", CPU, 0)
    images, _ = next(data.evaluation_batches(len(data)))
    _, description = load_model(project / MODEL)
    stored = [project / f"stored{index}.jpg" for index in range(len(data))]
    split = Split(project / "data/folder", "val")
    for index, path in enumerate(stored):
        path.write_bytes(split.encoded(index))
    assert torch.allclose(images, load_images(stored, description), atol=1e-6)
    shutil.copy(project / "raw/bird/0.jpg", project / "colour.jpg")
    luma = Image.open(project / "colour.jpg").convert("L").resize((37, 28), Image.Resampling.BILINEAR)
    expected = (np.asarray(luma.crop((6, 2, 30, 26)), np.float32) / 255 - 0.449) / 0.226
    np.testing.assert_allclose(load_images([project / "colour.jpg"], description)[0, 0], expected, atol=1e-5)
