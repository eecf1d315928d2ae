"""An experiment of a few lines on one's own images gets a results page under either engine, and publishes no image."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.plans import planned_by_dvc, planned_by_snakemake
from tests.support.project import copy_project, run, run_moonshine, toy_params

EXPERIMENT = """\
experiment: own
seeds: [0]
dataset: {source: folder, size: 24}
recipe: {epochs: 1, batch_size: 4, lr: 0.1}
networks:
  big: {arch: resnet18, stem: 3x3, channels: [4, 4, 8, 8]}
  cheap: {arch: resnet18, stem: 3x3, channels: [4, 4, 8, 8], conv: G(N)}
teacher: train/big/seed0
methods: {at: {beta: 30.0}}
machine: {device: cpu, raw_data: {folder: ../images}, workers: 1}
"""


def draw_images(folder: Path) -> None:
    """Two classes: bright on the left, bright on the right."""
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 4)):
        for side, name in enumerate(("left", "right")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 80, (30, 40, 3), dtype=np.uint8)
                pixels[:, 20 * side : 20 * side + 20] += 150
                Image.fromarray(pixels).save(folder / split / name / f"{number}.jpg")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    draw_images(tmp_path / "images")
    project = copy_project(tmp_path / "project", toy_params())
    (project / "experiments").mkdir(exist_ok=True)
    (project / "experiments/own.yaml").write_text(EXPERIMENT)
    run_moonshine("use", "own", cwd=project)
    return project


@pytest.mark.slow
@pytest.mark.parametrize("engine", [("snakemake", "--cores", "2"), ("dvc", "repro")], ids=" ".join)
def test_a_few_lines_give_a_results_page_without_images(engine: tuple[str, ...], project: Path) -> None:
    run(*engine, cwd=project)
    results = project / "results/own"
    page = (results / "README.md").read_text()
    table = [[cell.strip(" *") for cell in line.split("|")] for line in page.splitlines() if line.startswith("| ")]
    assert {"train/big", "train/cheap", "distil/at/cheap"} <= {line[1] for line in table}
    assert "Top-5" not in page, "there are two classes"
    assert "No images are shown." in page
    assert "Mean distance over 8 images" in page
    assert "attention-maps/maps" not in page
    assert "Attention maps of the teacher" not in (results / "report.html").read_text()
    distances = json.loads((results / "attention-maps/distances.json").read_text())
    assert distances["images"] == []
    assert len(distances["distance"]["distilled"]) == 4, "in each group, although none is drawn"
    assert b"image/png" not in (results / "attention-maps/maps.svg").read_bytes()
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()
    assert (project / "data/own/train.arrow").exists()
    cached = [path for path in (project / ".dvc/cache").rglob("*") if path.is_file()]
    assert all(not path.read_bytes().startswith(b"ARROW") for path in cached), "own images stay where they are"
