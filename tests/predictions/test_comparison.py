"""What `moonshine compare` counts, against independent computations and through the command line."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import kl_div, log_softmax, softmax

from benchmarks.separate_project import write_params
from moonshine.comparison.fidelity import agreement, calibration_error, divergence
from moonshine.comparison.pairs import only_one_wrong, wrong
from moonshine.params import read_params
from moonshine.predictions.parquet_file import Predictions, read_predictions, write_predictions
from moonshine.report.image_by_image import read_image_by_image
from tests.support.project import copy_finished, run, run_moonshine, toy_params


def random_predictions(seed: int, images: int = 400, classes: int = 12) -> Predictions:
    draws = np.random.default_rng(seed)
    logits = draws.normal(scale=3, size=(images, classes)).astype(np.float16)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    return Predictions(np.arange(images) % classes, best, logits)


def test_agreement_is_the_share_of_images_with_the_teachers_class() -> None:
    ours, theirs = random_predictions(0), random_predictions(1)
    same = sum(int(a.argmax()) == int(b.argmax()) for a, b in zip(ours.logits, theirs.logits))
    assert agreement(ours, theirs) == pytest.approx(100 * same / 400)
    assert agreement(ours, ours) == 100


def test_the_divergence_is_pytorchs_from_teacher_to_student() -> None:
    ours, theirs = random_predictions(0), random_predictions(1)
    student, teacher = (torch.tensor(each.logits.astype(np.float64)) for each in (ours, theirs))
    expected = kl_div(log_softmax(student, 1), softmax(teacher, 1), reduction="batchmean")
    assert divergence(ours, theirs) == pytest.approx(float(expected), rel=1e-9)
    assert divergence(ours, ours) == 0
    assert divergence(theirs, ours) != pytest.approx(divergence(ours, theirs), rel=1e-3)


def test_the_calibration_error_follows_its_definition_bin_by_bin() -> None:
    """Guo et al. 2017, eq. 3: the mean over bins of |accuracy - confidence|, weighted by their images."""
    predictions = random_predictions(2)
    probabilities = softmax(torch.tensor(predictions.logits.astype(np.float64)), 1).numpy()
    expected = 0.0
    for number in range(15):
        inside = [
            (probability.max(), probability.argmax() == label)
            for probability, label in zip(probabilities, predictions.labels)
            if number / 15 < probability.max() <= (number + 1) / 15
        ]
        if inside:
            confidences, hits = zip(*inside)
            expected += len(inside) / 400 * abs(np.mean(hits) - np.mean(confidences))
    assert calibration_error(predictions) == pytest.approx(100 * expected, rel=1e-9)


def test_a_network_that_is_sure_and_right_is_calibrated_and_one_that_is_sure_and_wrong_is_not() -> None:
    logits = np.zeros((10, 3), np.float16)
    logits[:, 1] = 60000
    best = np.tile([1, 0, 2], (10, 1))
    assert calibration_error(Predictions(np.ones(10, int), best, logits)) == pytest.approx(0, abs=1e-9)
    assert calibration_error(Predictions(np.zeros(10, int), best, logits)) == pytest.approx(100)


def test_pairs_count_the_images_that_only_one_network_gets_wrong() -> None:
    ours, theirs = random_predictions(3), random_predictions(4)
    theirs = Predictions(ours.labels, theirs.best, theirs.logits)
    counts = only_one_wrong(wrong(ours), wrong(theirs))
    for error, within in (("top1", 1), ("top5", 5)):
        tables = {(False, True): 0, (True, False): 0, (True, True): 0, (False, False): 0}
        for label, a, b in zip(ours.labels, ours.best, theirs.best):
            tables[label not in a[:within], label not in b[:within]] += 1
        assert counts[f"{error}_only_row"] == tables[True, False] > 0
        assert counts[f"{error}_only_other"] == tables[False, True] > 0


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = random_predictions(5)
    write_predictions(tmp_path / "seed0.parquet", written)
    read = read_predictions(tmp_path / "seed0.parquet")
    for ours, theirs in ((written.labels, read.labels), (written.best, read.best), (written.logits, read.logits)):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def compared(project: Path, name: str) -> Any:
    return pd.read_csv(project / f"results/toy/comparison/{name}.csv")


def frames(project: Path) -> dict[str, pd.DataFrame]:
    folder = project / "models/toy/predictions"
    return {row: pd.read_parquet(folder / row / "seed0.parquet") for row in ("train/teacher", "distil/at/student")}


def test_the_pipelines_comparison_is_that_of_its_predictions(by_snakemake: Path) -> None:
    teacher, student = frames(by_snakemake).values()
    fidelity = compared(by_snakemake, "fidelity").set_index("row")
    assert list(fidelity.index) == ["train/teacher", "distil/at/student"]
    assert fidelity.loc["train/teacher", "agreement"] == 100
    assert fidelity.loc["train/teacher", "kl"] == 0
    agreeing = 100 * (teacher["best1"] == student["best1"]).mean()
    assert fidelity.loc["distil/at/student", "agreement"] == pytest.approx(agreeing, abs=1e-5)
    (pair,) = compared(by_snakemake, "pairs").to_dict("records")
    wrongs = [each["best1"] != each["label"] for each in (teacher, student)]
    assert (pair["row"], pair["other"], pair["seed"], pair["images"]) == ("train/teacher", "distil/at/student", 0, 600)
    assert pair["top1_only_row"] == (wrongs[0] & ~wrongs[1]).sum()
    assert pair["top1_only_other"] == (wrongs[1] & ~wrongs[0]).sum()


def test_a_published_network_is_paired_with_every_seed(by_snakemake: Path, tmp_path: Path) -> None:
    """Two seeds of a student and of the teacher, and a published network, as `evaluate` would have written them."""
    params = toy_params()
    params.update(seeds=[0, 1], fetch={"published": {"url": "net.pth", "sha256": 64 * "0"}})
    params["networks"]["published"] = params["networks"]["teacher"]
    write_params(tmp_path, params)
    folder = tmp_path / "models/toy/predictions"
    names = [f"{row}/seed{seed}" for row in ("train/teacher", "distil/at/student") for seed in (0, 1)]
    for number, name in enumerate(["fetch/published", *names]):
        write_predictions(folder / f"{name}.parquet", random_predictions(number))
    run_moonshine("compare", cwd=tmp_path)
    pairs, fidelity = compared(tmp_path, "pairs"), compared(tmp_path, "fidelity")
    assert [*map(tuple, pairs[["row", "other", "seed"]].to_numpy())] == [
        (*names, seed)
        for names in itertools.combinations(("fetch/published", "train/teacher", "distil/at/student"), 2)
        for seed in (0, 1)
    ]
    assert fidelity["seed"].isna().tolist() == [True, False, False, False, False]
    assert fidelity.loc[1, "agreement"] == 100, "seed 0 of the teacher, which taught"
    assert fidelity.loc[2, "agreement"] < 100


def test_a_single_row_is_compared_with_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its page can be written: a table without lines is no damage."""
    params = toy_params()
    params.update(distil={"networks": [], "methods": []}, titles={})
    params["tables"][0].update(rows=["train/teacher"], published=[])
    params["attention_maps"].update(scratch=params["teacher"], distilled=params["teacher"])
    write_params(tmp_path, params)
    write_predictions(tmp_path / "models/toy/predictions/train/teacher/seed0.parquet", random_predictions(0))
    run_moonshine("compare", cwd=tmp_path)
    assert len(compared(tmp_path, "pairs")) == 0
    monkeypatch.chdir(tmp_path)
    assert read_image_by_image(read_params(tmp_path / "params.yaml")).only_one_wrong == {}


@pytest.mark.parametrize("damage", ["missing", "cut", "of other images"])
def test_predictions_that_cannot_be_compared_are_refused_in_one_line(
    damage: str, by_snakemake: Path, tmp_path: Path
) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    path = project / "models/toy/predictions/distil/at/student/seed0.parquet"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "of other images":
        write_predictions(path, random_predictions(0))
    shutil.rmtree(project / "results/toy/comparison")
    result = run_moonshine("compare", cwd=project, check=False)
    assert result.returncode == 3
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: models/toy/predictions/distil/at/student/seed0.parquet: ")
    assert "run `moonshine evaluate" in line
    assert "Traceback" not in result.stderr
    assert not (project / "results/toy/comparison").exists()


def test_predictions_of_a_row_that_params_no_longer_have_are_set_aside(by_snakemake: Path, tmp_path: Path) -> None:
    """DVC hashes the whole folder."""
    project = copy_finished(by_snakemake, tmp_path / "project")
    former = project / "models/toy/predictions/distil/at/former/seed0.parquet"
    former.parent.mkdir(parents=True)
    shutil.copy(project / "models/toy/predictions/distil/at/student/seed0.parquet", former)
    assert "compare@toy" in run("dvc", "status", cwd=project).stdout
    run_moonshine("compare", cwd=project)
    assert not former.exists()
    assert "up to date" in run("dvc", "status", cwd=project).stdout
