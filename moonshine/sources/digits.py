"""scikit-learn's 1,797 handwritten digits: 8x8 pixels, 16 grey levels, bundled with the package.

Source: the test set of the UCI "Optical Recognition of Handwritten Digits" data (Alpaydin, Kaynak 1998).
"""

import hashlib
from collections.abc import Mapping
from importlib import resources

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from moonshine.inputs.raw import RawFile
from moonshine.params import schema
from moonshine.preparation.prepared import Prepared

DEFAULT_VALIDATION = 360
SPLIT_SEED = 0


def prepare(settings: schema.Dataset, files: Mapping[str, RawFile]) -> Prepared:
    """Hold out settings.validation images, stratified by class."""
    raw = resources.files("sklearn.datasets.data").joinpath("digits.csv.gz").read_bytes()
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    train, val = train_test_split(
        np.arange(len(images)),
        test_size=settings.validation or DEFAULT_VALIDATION,
        stratify=digits.target,
        random_state=SPLIT_SEED,
    )
    indices = {"train": np.sort(train), "val": np.sort(val)}
    return Prepared(
        classes=[str(name) for name in digits.target_names],
        images={split: images[index] for split, index in indices.items()},
        labels={split: digits.target[index] for split, index in indices.items()},
        ids={split: [str(i) for i in index] for split, index in indices.items()},
        origin={
            "source": "scikit-learn load_digits, digits.csv.gz",
            "sha256": hashlib.sha256(raw).hexdigest(),
            "split": f"stratified, seed {SPLIT_SEED}",
        },
    )
