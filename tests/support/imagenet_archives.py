"""Archives in the exact layout of ILSVRC2012, with a few small images a class and all the oddities of the original."""

import functools
import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from tests.support.project import toy_params

ARCHIVES = {
    "train": "ILSVRC2012_img_train.tar",
    "validation": "ILSVRC2012_img_val.tar",
    "devkit": "ILSVRC2012_devkit_t12.tar.gz",
}
KINDS = ("RGB", "grey", "CMYK", "PNG", "broken EXIF", "EXIF rotated")
ENCODINGS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 1},
    "RGB in three components": {"keep_rgb": True},
}
"""More kinds, and how Pillow is told to write them."""


@functools.cache
def jpeg(seed: int, width: int = 40, height: int = 30, kind: str = "RGB") -> bytes:
    """A small picture with structure, so that a crop can be told from another."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    if kind == "PNG":
        image.save(buffer, "PNG")
        return buffer.getvalue()
    extra = dict(ENCODINGS.get(kind, {}))
    if kind == "EXIF rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        extra["exif"] = exif
    if kind == "broken EXIF":
        extra["exif"] = b"Exif\0\0II*\0\x08\0\0\0\x05\0broken"
    mode = {"grey": "L", "CMYK": "CMYK"}.get(kind, "RGB")
    image.convert(mode).save(buffer, "JPEG", quality=90, **extra)
    return buffer.getvalue()


def tar_bytes(members: Iterable[tuple[str, bytes]], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Archives:
    """The three archives as plain values, to be written whole or tampered with first."""

    def __init__(self, classes: int = 1000, train: int = 2, val: int | None = None, odd: bool = True):
        random = np.random.default_rng(7)
        numbers = sorted(random.choice(np.arange(1440764, 15075141), classes, replace=False).tolist())
        self.wnids = [f"n{number:08d}" for number in numbers]
        self.ids = {wnid: int(i) for wnid, i in zip(self.wnids, random.permutation(classes) + 1)}
        kinds = KINDS if odd else KINDS[:1]
        self.train = {
            wnid: [
                (f"{wnid}_{10 * c + i}.JPEG", jpeg((c * train + i) % 50, kind=kinds[(c + i) % len(kinds)]))
                for i in range(train)
            ]
            for c, wnid in enumerate(self.wnids)
        }
        count = classes if val is None else val
        self.truth = [int(i) for i in random.permutation(count) % classes + 1]
        self.val = [
            (f"ILSVRC2012_val_{number:08d}.JPEG", jpeg(number % 50, kind=kinds[number % len(kinds)]))
            for number in range(1, count + 1)
        ]

    def label(self, wnid: str) -> int:
        return self.wnids.index(wnid)

    def validation_labels(self) -> list[int]:
        wnid_of = {i: wnid for wnid, i in self.ids.items()}
        return [self.label(wnid_of[i]) for i in self.truth]

    def train_tar(self) -> bytes:
        """Classes in the order of the original, which is alphabetical; the oldest tar format, as there."""
        return tar_bytes((f"{wnid}.tar", tar_bytes(images)) for wnid, images in self.train.items())

    def devkit_tar(self) -> bytes:
        folder = "ILSVRC2012_devkit_t12/data"
        truth = "".join(f"{i}\n" for i in self.truth).encode()
        members = [
            (f"{folder}/meta.mat", self._synsets()),
            (f"{folder}/ILSVRC2012_validation_ground_truth.txt", truth),
        ]
        return tar_bytes(members, "w:gz")

    def _synsets(self) -> bytes:
        """A struct array as in the original: the leaves by their ids, then inner nodes of the hierarchy."""
        leaves = sorted(self.wnids, key=self.ids.__getitem__)
        names = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height"]
        table = np.zeros((len(leaves) + 2, 1), dtype=[(name, object) for name in [*names, "num_train_images"]])
        for position, wnid in enumerate(leaves):
            count = len(self.train.get(wnid, [])) or 2
            table[position, 0] = (self.ids[wnid], wnid, f"word {wnid}, other", "gloss", 0, np.zeros((1, 0)), 0, count)
        for position in range(len(leaves), len(leaves) + 2):
            children = np.array([[1, 2]])
            table[position, 0] = (position + 1, f"n9999999{position % 10}", "inner", "gloss", 2, children, 1, 0)
        buffer = io.BytesIO()
        savemat(buffer, {"synsets": table})
        return buffer.getvalue()

    def write(self, folder: Path, **replaced: bytes) -> dict[str, Any]:
        """Write the archives, or other bytes in the place of some; returns `dataset.files` with their checksums."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"train": self.train_tar, "validation": lambda: tar_bytes(self.val), "devkit": self.devkit_tar}
        files = {}
        for role, name in ARCHIVES.items():
            data = replaced[role] if role in replaced else content[role]()
            (folder / name).write_bytes(data)
            files[role] = {"name": name, "md5": hashlib.md5(data, usedforsecurity=False).hexdigest()}
        return files


def jpeg_params(source: str, raw: Path, classes: int, **settings: Any) -> dict[str, Any]:
    """The toy experiment on photographs of 24 pixels."""
    params = toy_params()
    params["dataset"] = {
        "name": source,
        "source": source,
        "classes": classes,
        "channels": 3,
        "size": 24,
        "evaluation": {"resize": 28},
        "shared": [],
        "licensed": [source],
        **settings,
    }
    params["recipe"]["augmentation"] = {"crop_scale": [0.08, 1.0], "flip": True}
    params["machine"] = {"raw_data": {source: str(raw)}, "workers": 2}
    return params
