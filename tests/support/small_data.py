"""Small data sets in the exact layout of the published ones, with their params."""

import copy
import gzip
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.project import toy_params


def params_for(source: str, raw: Path, **settings: Any) -> dict[str, Any]:
    """The toy experiment on another source, its files in `raw`."""
    params = copy.deepcopy(toy_params())
    name = source.replace("_", "-")
    shared = {"shared": [name], "licensed": []}
    params["dataset"] = {"name": name, "source": source, "classes": 10, "size": 8, **shared, **settings}
    params["machine"] = {"raw_data": {source: str(raw)}}
    return params


def idx(array: np.ndarray) -> bytes:
    """The IDX format of MNIST."""
    header = np.array([0x0800 + array.ndim, *array.shape], ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_fashion_mnist(raw: Path, train: int = 200, val: int = 100) -> dict[str, Any]:
    """Four files as the published ones are; returns the params."""
    raw.mkdir(parents=True)
    files, random = {}, np.random.default_rng(0)
    for split, stem, count in (("train", "train", train), ("val", "t10k", val)):
        for kind, array in (
            ("images-idx3", random.integers(0, 256, (count, 28, 28))),
            ("labels-idx1", np.arange(count) % 10),
        ):
            content = idx(array)
            path = raw / f"{stem}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(content))
            role = f"{split}_{kind.split('-')[0]}"
            files[role] = {"name": path.name, "content_sha256": hashlib.sha256(content).hexdigest()}
    return params_for("fashion_mnist", raw, channels=1, size=8, files=files)


def tar_of(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def cifar_members(source: str, train: int = 200, val: int = 100) -> dict[str, bytes]:
    """Members of the binary version's archive, labels going round."""
    if source == "cifar10":
        folder, splits = "cifar-10-batches-bin", {f"data_batch_{i}.bin": train // 5 for i in range(1, 6)}
        splits["test_batch.bin"] = val
        names = {"batches.meta.txt": [f"class{i}" for i in range(10)]}
        label_bytes = 1
    else:
        folder, splits = "cifar-100-binary", {"train.bin": train, "test.bin": val}
        names = {"fine_label_names.txt": [f"fine{i}" for i in range(100)]}
        label_bytes = 2
    classes = len(next(iter(names.values())))
    members = {f"{folder}/{name}": ("\n".join(lines) + "\n").encode() for name, lines in names.items()}
    random = np.random.default_rng(0)
    for name, count in splits.items():
        records = random.integers(0, 256, (count, label_bytes + 3072)).astype(np.uint8)
        records[:, label_bytes - 1] = np.arange(count) % classes
        members[f"{folder}/{name}"] = records.tobytes()
    return members


def write_cifar(source: str, raw: Path, members: dict[str, bytes] | None = None) -> dict[str, Any]:
    """The archive in `raw`; returns the params."""
    raw.mkdir(parents=True)
    content = tar_of(members or cifar_members(source))
    name = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}[source]
    (raw / name).write_bytes(content)
    files = {"archive": {"name": name, "sha256": hashlib.sha256(content).hexdigest()}}
    return params_for(source, raw, channels=3, classes={"cifar10": 10, "cifar100": 100}[source], size=32, files=files)
