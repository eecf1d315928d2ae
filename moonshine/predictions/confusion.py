"""Which classes a network mistakes for which, and its error if all classes count the same."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from moonshine.predictions.parquet_file import Predictions

MOST_CLASSES = 100
"""With more classes, only the most frequent mistake of each is listed."""
HEADER = ("seed", "label", "prediction", "images")
OTHERS = ""
"""In place of a predicted class: all predictions that are not listed."""

Confusion = Counter[tuple[int, int]]
"""(label, predicted class) -> number of images; pairs that do not occur are left out."""


def balanced_error(predictions: Predictions) -> float:
    """The mean over classes of each class's top-1 error, in per cent; classes without images are left out.

    It is 100 minus the balanced accuracy of Brodersen et al., "The Balanced Accuracy and Its Posterior Distribution",
    ICPR 2010.
    """
    labels = predictions.labels
    images = np.bincount(labels)
    wrong = np.bincount(labels[predictions.best[:, 0] != labels], minlength=len(images))
    present = images > 0
    return float(100 * (wrong[present] / images[present]).mean())


def count_confusions(predictions: Predictions) -> Confusion:
    """How many images of each class were given each class."""
    pairs, counts = np.unique(np.stack([predictions.labels, predictions.best[:, 0]]), axis=1, return_counts=True)
    return Counter(dict(zip(map(tuple, pairs.T.tolist()), counts.tolist())))


def confusion_csv(by_seed: Mapping[int | None, Confusion], classes: Sequence[str]) -> str:
    """CSV with the columns of `HEADER`, ordered by seed, label and prediction, which are written as class names.

    A published network has no seed. For more than 100 classes, each class has the number of images that were right,
    that of its most frequent mistake over all seeds together, and in a line without a prediction that of all others.
    """
    listed = None if len(classes) <= MOST_CLASSES else _most_frequent_mistakes(by_seed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for seed, confusion in by_seed.items():
        lines: Counter[tuple[int, int]] = Counter()
        for (label, prediction), images in confusion.items():
            is_listed = listed is None or prediction in (label, listed.get(label))
            lines[label, prediction if is_listed else len(classes)] += images
        for (label, prediction), images in sorted(lines.items()):
            predicted = classes[prediction] if prediction < len(classes) else OTHERS
            writer.writerow(["" if seed is None else seed, classes[label], predicted, images])
    return text.getvalue()


def _most_frequent_mistakes(by_seed: Mapping[int | None, Confusion]) -> dict[int, int]:
    """Label -> the wrong class it was given most often, the first one of several."""
    together: Counter[tuple[int, int]] = sum(by_seed.values(), Counter())
    by_frequency = sorted(together, key=lambda pair: (together[pair], -pair[1]))
    return {label: prediction for label, prediction in by_frequency if label != prediction}
