"""The page on own images: what it draws is a folder that the experiment can be run on."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.separate_project import ROOT, load_params_dict, start_and_run
from moonshine.preparation.layouts import find_layout

DEBIAN = "/usr/share/datasets/fashion-mnist"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Fashion-MNIST's four files with three training and two validation images per class, each of another grey."""
    for name, per_class in (("train", 3), ("t10k", 2)):
        labels = np.tile(np.arange(10, dtype=np.uint8), per_class)
        pixels = np.full((len(labels), 28, 28), np.arange(len(labels))[:, None, None] + 100 * per_class, np.uint8)
        for kind, header, array in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            (tmp_path / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(bytes(header) + array.tobytes()))
    return tmp_path


def test_the_images_of_the_small_experiment_are_drawn(files: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs/your-own-images.md").read_text()
    (program,) = (found for found in re.findall(r'^\$ python -c "\n(.*?)"$', text, re.M | re.S) if DEBIAN in found)
    start_and_run("python", "-c", program.replace(DEBIAN, str(files)), cwd=tmp_path, HOME=str(tmp_path))
    params = load_params_dict(ROOT / "experiments/fashion-mnist-few.yaml")
    folder = Path(params["machine"]["raw_data"]["folder"].replace("~", str(tmp_path)))
    layout = find_layout(folder)
    assert (layout.counts("train"), layout.counts("val")) == ([3] * 10, [2] * 10)
    assert params["dataset"]["classes"] == len(layout.classes)
