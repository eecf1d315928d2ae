"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32x32 pixels, from the archive of its binary version.

A record is the label and 3,072 bytes of red, green and blue rows. (The Python version is made of pickles, which can
run code; the binary one holds the same bytes.)
"""

from collections.abc import Mapping

import numpy as np

from moonshine.inputs.archives import read_members
from moonshine.inputs.raw import RawFile
from moonshine.params import schema
from moonshine.preparation.prepared import Prepared

RECORD = np.dtype([("label", "u1"), ("image", "u1", (3, 32, 32))])
FOLDER = "cifar-10-batches-bin"
MEMBERS = {
    "train": [f"{FOLDER}/data_batch_{number}.bin" for number in range(1, 6)],
    "val": [f"{FOLDER}/test_batch.bin"],
}
NAMES = f"{FOLDER}/batches.meta.txt"


def prepare(settings: schema.Dataset, files: Mapping[str, RawFile]) -> Prepared:
    """The published splits; ids are positions in them."""
    content = read_members(files["archive"], [*MEMBERS["train"], *MEMBERS["val"], NAMES])
    records = {
        split: np.concatenate([np.frombuffer(content[member], RECORD) for member in members])
        for split, members in MEMBERS.items()
    }
    return Prepared(
        classes=content[NAMES].decode().split(),
        images={split: records[split]["image"] for split in records},
        labels={split: records[split]["label"].astype(np.int64) for split in records},
        ids={split: [str(i) for i in range(len(records[split]))] for split in records},
        origin={"source": "CIFAR-10", "sha256": files["archive"].checksum},
    )
