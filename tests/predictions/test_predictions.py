"""Predictions per image and what is counted from them, against independent computations on the digits."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score, confusion_matrix
from torch import nn

from moonshine.evaluation import measure as evaluation
from moonshine.predictions.confusion import balanced_error, confusion_csv, count_confusions
from moonshine.predictions.parquet_file import Predictions, write_predictions
from moonshine.predictions.recorder import Recorder

NAMES = [f"digit {number}" for number in range(10)]


class Digits:
    """The split that a network is measured on, as `data/` gives it: batches in the order of the file."""

    def __init__(self) -> None:
        digits = load_digits()
        self.images = torch.tensor(digits.images, dtype=torch.float32).flatten(1)
        self.labels = torch.tensor(digits.target)
        self.device = torch.device("cpu")
        self.manifest = {"splits": {"val": {"count": len(self.labels)}}}

    def evaluation_batches(self, batch_size: int) -> Any:
        return zip(self.images.split(batch_size), self.labels.split(batch_size))


def network(classes: int = 10) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, classes)


def measured(network: nn.Module) -> tuple[dict[str, float], Predictions]:
    data: Any = Digits()
    recorder = Recorder(network)
    return evaluation.measure(recorder, data, lambda: None), recorder.predictions(data.labels)


@pytest.fixture(scope="module")
def of_digits() -> Predictions:
    return measured(network())[1]


def made(labels: list[int], best: list[int], classes: int) -> Predictions:
    return Predictions(np.array(labels), np.array(best)[:, None], np.zeros((len(labels), classes), np.float16))


@pytest.mark.parametrize("batch_size", [1, 7, 200, 5000])
def test_predictions_are_in_the_splits_order_whatever_the_batches(
    batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "BATCH_SIZE", batch_size)
    _, predictions = measured(network())
    with torch.inference_mode():
        logits = network()(Digits().images).numpy()
    np.testing.assert_allclose(predictions.logits, logits, rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(predictions.best, np.argsort(-logits, axis=1)[:, :5])
    np.testing.assert_array_equal(predictions.labels, load_digits().target)


def test_predictions_and_errors_are_of_one_pass() -> None:
    errors, predictions = measured(network())
    right = predictions.best == predictions.labels[:, None]
    assert errors["top1"] == pytest.approx(100 * (1 - right[:, 0].mean()))
    assert errors["top5"] == pytest.approx(100 * (1 - right.any(1).mean()))
    assert errors == evaluation.measure(network(), Digits(), lambda: None), "a recorded network is measured as itself"  # type: ignore[arg-type]


def test_what_float16_cannot_hold_is_clamped() -> None:
    large = network()
    with torch.no_grad():
        large.weight.mul_(1e6)
    logits = measured(large)[1].logits
    assert np.isfinite(logits).all()
    assert logits.max() == np.finfo(np.float16).max
    assert logits.min() == -np.finfo(np.float16).max


@pytest.mark.parametrize(("classes", "best"), [(10, 5), (3, 3)])
def test_the_file_has_a_line_per_image(classes: int, best: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(40, classes)).astype(np.float16)
    predictions = Predictions(random.integers(0, classes, 40), np.argsort(-logits, axis=1)[:, :best], logits)
    path = tmp_path / "folder" / "seed0.parquet"
    write_predictions(path, predictions)
    frame = pd.read_parquet(path)
    named = [f"best{place}" for place in range(1, best + 1)]
    assert list(frame) == ["index", "label", *named, "logits"]
    assert list(frame["index"]) == list(range(40))
    np.testing.assert_array_equal(frame["label"], predictions.labels)
    np.testing.assert_array_equal(frame[named], predictions.best)
    np.testing.assert_array_equal(np.stack(frame["logits"]), logits)
    assert str(pq.read_schema(path).field("logits").type) == f"fixed_size_list<element: halffloat>[{classes}]"


def test_equal_predictions_give_equal_bytes(of_digits: Predictions, tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_predictions(tmp_path / name, of_digits)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_the_balanced_error_is_scikit_learns(of_digits: Predictions) -> None:
    expected = 100 * (1 - balanced_accuracy_score(of_digits.labels, of_digits.best[:, 0]))
    assert balanced_error(of_digits) == pytest.approx(expected)


def test_a_class_counts_as_much_as_others_however_few_its_images_and_not_without_any() -> None:
    """Nine right images of class 0, a wrong one of class 3; classes 1, 2 and 4 have none."""
    assert balanced_error(made([0] * 9 + [3], [0] * 9 + [4], 5)) == 50.0


def test_confusions_are_scikit_learns(of_digits: Predictions) -> None:
    counts = confusion_matrix(of_digits.labels, of_digits.best[:, 0])
    text = confusion_csv({0: count_confusions(of_digits), 7: count_confusions(of_digits)}, NAMES)
    expected = [
        [seed, NAMES[label], NAMES[prediction], str(counts[label, prediction])]
        for seed in ("0", "7")
        for label in range(10)
        for prediction in range(10)
        if counts[label, prediction]
    ]
    assert list(csv.reader(io.StringIO(text))) == [["seed", "label", "prediction", "images"], *expected]


def test_a_published_network_has_no_seed_and_any_name_is_quoted() -> None:
    text = confusion_csv({None: count_confusions(made([0, 0], [0, 1], 2))}, ['a "big", cat', "dog"])
    assert text.splitlines()[1:] == [',"a ""big"", cat","a ""big"", cat",1', ',"a ""big"", cat",dog,1']


def test_of_many_classes_only_the_most_frequent_mistake_of_all_seeds_is_listed() -> None:
    """Class 5 is taken for 6 and 7, for 7 more often over both seeds, although not with the first."""
    names = [f"c{number}" for number in range(101)]
    first = made([5] * 6 + [8], [5, 6, 6, 6, 7, 7, 8], 101)
    second = made([5] * 6 + [8], [5, 5, 7, 7, 7, 9, 8], 101)
    text = confusion_csv({0: count_confusions(first), 1: count_confusions(second)}, names)
    assert text.splitlines()[1:] == [
        "0,c5,c5,1",
        "0,c5,c7,2",
        "0,c5,,3",
        "0,c8,c8,1",
        "1,c5,c5,2",
        "1,c5,c7,3",
        "1,c5,,1",
        "1,c8,c8,1",
    ]


@pytest.mark.parametrize(("best", "listed"), [([6, 7], "c6"), ([7, 6], "c6")])
def test_of_equally_frequent_mistakes_the_first_class_is_listed(best: list[int], listed: str) -> None:
    names = [f"c{number}" for number in range(101)]
    text = confusion_csv({0: count_confusions(made([5, 5], best, 101))}, names)
    assert text.splitlines()[1:] == [f"0,c5,{listed},1", "0,c5,,1"]


@pytest.mark.parametrize("count", [balanced_error, count_confusions])
def test_nothing_grows_with_the_square_of_the_classes(count: Callable[[Predictions], Any]) -> None:
    """A full matrix of a million classes would need terabytes."""
    assert count(Predictions(np.array([0, 999_999]), np.array([[1], [999_999]]), np.zeros((2, 1), np.float16)))
