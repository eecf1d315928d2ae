"""scikit-learn's 1,797 handwritten digits: 8x8 pixels, 16 grey levels, bundled with the package.

Source: the test set of the UCI "Optical Recognition of Handwritten Digits" data (Alpaydin, Kaynak 1998).
"""

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from moonshine.data.prepared import Prepared
from moonshine.params import schema

DEFAULT_VALIDATION = 360
SPLIT_SEED = 0


def prepare(settings: schema.Dataset) -> Prepared:
    """Resize to settings.size (bilinear) and hold out settings.validation images, stratified by class."""
    digits = load_digits()
    images = np.stack([_resize(image, settings.size) for image in digits.images])
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
        origin={"source": "scikit-learn load_digits", "split": f"stratified, seed {SPLIT_SEED}"},
    )


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    """(8, 8) of 0..16 -> (1, size, size) uint8 of 0..255."""
    grey = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))[None]
