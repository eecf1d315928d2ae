"""Fashion-MNIST and CIFAR in the layout they are published in become prepared data; damaged ones never do."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.separate_project import ROOT, load_params_dict, write_params
from moonshine.images.store import Split
from tests.support.project import run_moonshine
from tests.support.small_data import cifar_members, write_cifar, write_fashion_mnist

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def run_prepare(folder: Path, params: dict[str, Any]) -> Path:
    write_params(folder, params)
    run_moonshine("prepare", cwd=folder)
    return folder / "data" / params["dataset"]["name"]


def refusal(folder: Path, params: dict[str, Any], code: int) -> str:
    """The one line of an error, after which nothing prepared may lie there."""
    write_params(folder, params)
    result = run_moonshine("prepare", cwd=folder, check=False)
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "data").exists() or not list((folder / "data").rglob("*.*"))
    return lines[0]


@pytest.mark.parametrize(("source", "classes", "label_bytes"), [("cifar10", 10, 1), ("cifar100", 100, 2)])
def test_cifar_has_the_pixels_and_labels_of_the_archive(
    source: str, classes: int, label_bytes: int, tmp_path: Path
) -> None:
    members = cifar_members(source)
    folder = run_prepare(tmp_path, write_cifar(source, tmp_path / "raw", members))
    for split, part in (("train", "batch_1" if classes == 10 else "train.bin"), ("val", "test")):
        (raw,) = (content for name, content in members.items() if part in name)
        records = np.frombuffer(raw, np.uint8).reshape(-1, label_bytes + 3072)
        prepared = Split(folder, split)
        assert np.array_equal(prepared.pixels[: len(records)].reshape(-1, 3072), records[:, label_bytes:])
        assert np.array_equal(prepared.labels[: len(records)], records[:, label_bytes - 1])
        assert len(prepared) == {"train": 200, "val": 100}[split]
    assert len(json.loads((folder / "manifest.json").read_text())["classes"]) == classes


def test_fashion_mnist_is_resized_and_reduced_with_classes_in_their_share(tmp_path: Path) -> None:
    params = write_fashion_mnist(tmp_path / "raw")
    params["dataset"]["training"] = 50
    folder = run_prepare(tmp_path, params)
    train, val = Split(folder, "train"), Split(folder, "val")
    assert np.bincount(train.labels).tolist() == [5] * 10
    assert (train.pixels.shape, val.pixels.shape) == ((50, 1, 8, 8), (100, 1, 8, 8))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["origin"]["subset"] == "50 of 200 training images, seed 0"
    assert manifest["normalisation"]["mean"][0] == pytest.approx(train.pixels.mean() / 255, abs=1e-6)


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist_is_recognised_by_its_content(tmp_path: Path) -> None:
    folder = run_prepare(tmp_path, load_params_dict(ROOT / "experiments/fashion-mnist.yaml"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["splits"]["val"]["count"] == 10000
    assert np.bincount(Split(folder, "val").labels).tolist() == [1000] * 10


def damaged(kind: str, raw: Path) -> None:
    (path,) = raw.glob("*train-images*")
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        del content[len(content) // 2 :]
    elif kind == "bit flipped":
        content[len(content) // 2] ^= 1
    elif kind == "empty":
        content.clear()
    elif kind == "html":
        content[:] = b"<html>404</html>"
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["truncated", "bit flipped", "empty", "html"])
def test_a_damaged_file_is_named(kind: str, tmp_path: Path) -> None:
    params = write_fashion_mnist(tmp_path / "raw")
    damaged(kind, tmp_path / "raw")
    line = refusal(tmp_path, params, 3)
    assert "raw/train-images-idx3-ubyte.gz" in line
    assert line.endswith("get it again")


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    params = write_fashion_mnist(tmp_path / "raw")
    (tmp_path / "raw/t10k-labels-idx1-ubyte.gz").unlink()
    assert "t10k-labels-idx1-ubyte.gz: missing; machine.raw_data.fashion_mnist" in refusal(tmp_path, params, 3)


def test_more_training_images_than_there_are_is_a_mistake_in_params(tmp_path: Path) -> None:
    params = write_fashion_mnist(tmp_path / "raw")
    params["dataset"]["training"] = 201
    assert "dataset.training: 201, but there are 200" in refusal(tmp_path, params, 2)


def test_all_but_a_few_training_images_is_a_mistake_in_params(tmp_path: Path) -> None:
    params = write_fashion_mnist(tmp_path / "raw")
    params["dataset"]["training"] = 191
    line = refusal(tmp_path, params, 2)
    assert "dataset.training: 191 of 200 images leave out fewer than there are classes" in line
    assert line.endswith("10..190 are possible, and 200")
    for possible in (190, 200):
        params["dataset"]["training"] = possible
        assert len(Split(run_prepare(tmp_path, params), "train")) == possible


@pytest.mark.parametrize(("labels", "reason"), [(11, "a label is outside 0..9"), (9, "no image of class 'class9'")])
def test_labels_out_of_range_and_empty_classes_are_refused(labels: int, reason: str, tmp_path: Path) -> None:
    members = cifar_members("cifar10")
    name = "cifar-10-batches-bin/test_batch.bin"
    records = np.frombuffer(members[name], np.uint8).reshape(-1, 3073).copy()
    records[:, 0] = np.arange(len(records)) % labels
    assert reason in refusal(
        tmp_path, write_cifar("cifar10", tmp_path / "raw", {**members, name: records.tobytes()}), 3
    )


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    members = cifar_members("cifar10")
    del members["cifar-10-batches-bin/data_batch_3.bin"]
    line = refusal(tmp_path, write_cifar("cifar10", tmp_path / "raw", members), 3)
    assert "has no cifar-10-batches-bin/data_batch_3.bin" in line


HOSTILE = {
    "traversal": {"name": "../outside", "data": b"x"},
    "absolute": {"name": "/outside-of-everything", "data": b"x"},
    "symbolic link": {"name": "link", "type": tarfile.SYMTYPE, "linkname": "../outside"},
    "hard link": {"name": "link", "type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
    "device": {"name": "null", "type": tarfile.CHRTYPE},
    "pipe": {"name": "pipe", "type": tarfile.FIFOTYPE},
    "twice": {"name": "cifar-10-batches-bin/batches.meta.txt", "data": b"x"},
}


@pytest.mark.parametrize("member", HOSTILE.values(), ids=HOSTILE)
def test_hostile_archives_are_refused_and_write_nothing(member: dict[str, Any], tmp_path: Path) -> None:
    params = write_cifar("cifar10", tmp_path / "raw")
    path = tmp_path / "raw" / "cifar-10-binary.tar.gz"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in cifar_members("cifar10").items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        info, data = tarfile.TarInfo(member["name"]), member.get("data", b"")
        info.size, info.type, info.linkname = len(data), member.get("type", tarfile.REGTYPE), member.get("linkname", "")
        tar.addfile(info, io.BytesIO(data))
    path.write_bytes(buffer.getvalue())
    params["dataset"]["files"]["archive"]["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    before = sorted(tmp_path.rglob("*"))
    line = refusal(tmp_path, params, 4)
    assert repr(member["name"]) in line
    assert not Path("/outside-of-everything").exists()
    assert {p for p in set(tmp_path.rglob("*")) - set(before) if p.is_file()} <= {
        tmp_path / "params.yaml",
        tmp_path / "logs/prepare/cifar10.log",
        tmp_path / "runs/prepare/cifar10/lock",
    }


def test_a_pin_is_required_and_only_one(tmp_path: Path) -> None:
    params = write_cifar("cifar10", tmp_path / "raw")
    del params["dataset"]["files"]["archive"]["sha256"]
    assert "needs exactly one of sha256, md5 and content_sha256" in refusal(tmp_path, params, 2)
    params["dataset"]["files"] = {}
    assert "files: cifar10 needs exactly archive, found none" in refusal(tmp_path, params, 2)
