"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747): 60,000 + 10,000 greyscale images of 28x28 pixels.

The four files are in the IDX format of MNIST: big-endian magic number, sizes, then bytes.
"""

from collections.abc import Mapping

import numpy as np

from moonshine.errors import DataError
from moonshine.inputs.raw import RawFile
from moonshine.params import schema
from moonshine.preparation.prepared import Prepared

CLASSES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]


def prepare(settings: schema.Dataset, files: Mapping[str, RawFile]) -> Prepared:
    """The published splits; ids are positions in the files."""
    images = {split: _idx(files[f"{split}_images"], dimensions=3)[:, None] for split in ("train", "val")}
    labels = {split: _idx(files[f"{split}_labels"], dimensions=1).astype(np.int64) for split in ("train", "val")}
    return Prepared(
        classes=CLASSES,
        images=images,
        labels=labels,
        ids={split: [str(i) for i in range(len(images[split]))] for split in images},
        origin={"source": "Fashion-MNIST", "content_sha256": {role: file.checksum for role, file in files.items()}},
    )


def _idx(file: RawFile, dimensions: int) -> np.ndarray:
    """A uint8 array of `dimensions` axes."""
    content = file.read()
    header = 4 * (1 + dimensions)
    magic, *shape = np.frombuffer(content[:header], ">u4").tolist()
    if magic != 0x0800 + dimensions or len(content) != header + np.prod(shape):
        raise DataError(f"{file.path}: not an IDX file of {dimensions}-dimensional bytes")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
