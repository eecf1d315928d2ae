"""CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32x32 pixels, from the archive of its binary version.

A record is the coarse label, which is not used, the fine label, and 3,072 bytes of red, green and blue rows.
"""

from collections.abc import Mapping

import numpy as np

from moonshine.inputs.archives import read_members
from moonshine.inputs.raw import RawFile
from moonshine.params import schema
from moonshine.preparation.prepared import Prepared

RECORD = np.dtype([("coarse", "u1"), ("label", "u1"), ("image", "u1", (3, 32, 32))])
FOLDER = "cifar-100-binary"
MEMBERS = {"train": f"{FOLDER}/train.bin", "val": f"{FOLDER}/test.bin"}
NAMES = f"{FOLDER}/fine_label_names.txt"


def prepare(settings: schema.Dataset, files: Mapping[str, RawFile]) -> Prepared:
    """The published splits; ids are positions in them."""
    content = read_members(files["archive"], [*MEMBERS.values(), NAMES])
    records = {split: np.frombuffer(content[member], RECORD) for split, member in MEMBERS.items()}
    return Prepared(
        classes=content[NAMES].decode().split(),
        images={split: records[split]["image"] for split in records},
        labels={split: records[split]["label"].astype(np.int64) for split in records},
        ids={split: [str(i) for i in range(len(records[split]))] for split in records},
        origin={"source": "CIFAR-100", "sha256": files["archive"].checksum},
    )
