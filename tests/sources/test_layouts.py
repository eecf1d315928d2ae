"""Images in each layout that people have are prepared as they are; what cannot be prepared is told in one line."""

import io
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from benchmarks.separate_project import write_params
from moonshine.errors import DataError
from moonshine.images.decoding import decode
from moonshine.images.store import SPLITS, Split, read_manifest
from moonshine.preparation.layouts import find_layout
from tests.support.imagenet_archives import Archives, jpeg_params
from tests.support.layouts import (
    CLASSES,
    Pictures,
    pictures,
    rows_of,
    write_files,
    write_imagenet_shards,
    write_imagenet_tree,
    write_kaggle,
    write_shards,
    write_table,
)
from tests.support.project import files_below, run, run_moonshine

Content = dict[str, list[tuple[str, bytes]]]


def run_prepare(folder: Path, source: str = "folder", classes: int = len(CLASSES), **settings: Any) -> Any:
    write_params(folder, jpeg_params(source, folder / "raw", classes, **settings))
    return run_moonshine("prepare", cwd=folder, check=False)


def prepared(folder: Path, **settings: Any) -> Content:
    """(class, content) of each image in each split."""
    result = run_prepare(folder, **settings)
    assert result.returncode == 0, result.stderr
    found = {}
    for name in SPLITS:
        split = Split(folder / "data/folder", name)
        classes = [split.manifest["classes"][label] for label in split.labels]
        found[name] = [(each, split.encoded(index)) for index, each in enumerate(classes)]
    return found


def refusal(folder: Path, **settings: Any) -> list[str]:
    """The lines of errors of a preparation that leaves nothing."""
    result = run_prepare(folder, **settings)
    assert result.returncode == 3, result.stderr
    assert "Traceback" not in result.stderr
    assert not [path for made in ("data", "runs") for path in (folder / made).rglob("*.arrow")]
    return [line.removeprefix("error: ") for line in result.stderr.splitlines() if line.startswith("error: ")]


TRAIN, VAL = pictures(), pictures(100, each=2)
EXPECTED: Content = {
    split: [(name.split("/")[0], content) for name, content in of.items()] for split, of in zip(SPLITS, (TRAIN, VAL))
}


def with_folders(validation: str) -> Callable[[Path], dict[str, Any]]:
    def write(raw: Path) -> dict[str, Any]:
        write_files(raw / "train", TRAIN)
        write_files(raw / validation, VAL)
        return {}

    return write


def with_test_as_well(raw: Path) -> dict[str, Any]:
    write_files(raw / "test", {"unlabelled.jpg": b"not read"})
    return with_folders("val")(raw)


def with_table(raw: Path) -> dict[str, Any]:
    """In Excel's encoding, in no order, with images that it does not name."""
    write_files(raw / "images/one", {name.replace("/", "-"): content for name, content in TRAIN.items()})
    write_files(raw / "images/two", {name.replace("/", "-"): content for name, content in VAL.items()})
    write_files(raw / "images", {"unlabelled.jpg": b"not read"})
    of_splits = (("one", "train", TRAIN), ("two", "valid", VAL))
    rows = [
        (f"images/{part}/{name.replace('/', '-')}", name.split("/")[0], split)
        for part, split, of in of_splits
        for name in of
    ]
    random.Random(0).shuffle(rows)
    write_table(raw / "labels.csv", rows, ("path", "label", "split"))
    (raw / "labels.csv").write_bytes(b"\xef\xbb\xbf" + (raw / "labels.csv").read_bytes())
    return {"labels": "labels.csv"}


def with_shards(raw: Path) -> dict[str, Any]:
    write_shards(raw, "train", rows_of(TRAIN), CLASSES)
    write_shards(raw, "validation", rows_of(VAL), CLASSES, count=1)
    write_shards(raw, "test", [(None, b"not read", -1)], CLASSES, count=1)
    return {}


@pytest.mark.parametrize(
    "write",
    [*map(with_folders, ("val", "valid", "validation", "test")), with_test_as_well, with_table, with_shards],
    ids=["val", "valid", "validation", "test", "val and test", "table", "shards"],
)
def test_a_layout_with_a_validation_split_is_prepared_as_it_is(
    write: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    """Images of every kind keep their bytes, in the order of classes."""
    assert prepared(tmp_path, **write(tmp_path / "raw")) == EXPECTED
    manifest = read_manifest(tmp_path / "data/folder")
    assert manifest["classes"] == CLASSES
    assert {each["kind"] for each in manifest["splits"]["train"]["oddities"]} == {
        "CMYK",
        "EXIF orientation 6",
        "PNG under a JPEG's name",
    }


def test_a_layout_without_one_holds_out_the_same_images(tmp_path: Path) -> None:
    """Folders, a table and shards of the same names give the same bytes."""
    sums = []
    for kind in ("folders", "table", "shards"):
        folder = tmp_path / kind
        settings: dict[str, Any] = {"validation_share": 0.34}
        if kind == "shards":
            write_shards(folder / "raw", "train", rows_of(TRAIN), CLASSES)
        else:
            write_files(folder / "raw", TRAIN)
        if kind == "table":
            write_table(folder / "raw/labels.csv", [(name, name.split("/")[0]) for name in TRAIN])
            settings["labels"] = "labels.csv"
        content = prepared(folder, **settings)
        assert [name for name, _ in content["val"]] == [name for name in CLASSES for _ in range(2)]
        assert sorted(content["train"] + content["val"]) == sorted(EXPECTED["train"])
        sums.append(files_below(folder / "data/folder", ".arrow"))
        origin = read_manifest(folder / "data/folder")["origin"]
        assert (origin["validation_share"], origin["split"]) == (0.34, "stratified, seed 0")
    assert sums[0] == sums[1] == sums[2]


def test_images_that_are_added_move_few_of_the_others(tmp_path: Path) -> None:
    write_files(tmp_path, {f"{name}/{index}.jpg": b"not read" for name in ("a", "b", "c") for index in range(50)})
    before = {image.name for image in find_layout(tmp_path).images["val"]}
    assert len(before) == 30
    write_files(tmp_path, {f"a/new{index}.jpg": b"not read" for index in range(5)})
    after = {image.name for image in find_layout(tmp_path).images["val"]}
    assert {name for name in before ^ after if not name.startswith("a/")} == set()
    assert len(before - after) <= 5
    assert {image.name for image in find_layout(tmp_path, seed=1).images["val"]} != after


def test_small_and_large_shares_leave_every_class_in_both_splits(tmp_path: Path) -> None:
    write_files(tmp_path, {f"{name}/{index}.jpg": b"not read" for name in ("a", "b") for index in range(3)})
    for share, expected in ((0.01, [1, 1]), (0.99, [2, 2])):
        assert find_layout(tmp_path, share).counts("val") == expected


def upright(encoded: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))


def test_photographs_are_turned_upright_if_params_say_so(tmp_path: Path) -> None:
    """Those alone, whatever the orientation; the pixels are the camera's but for one more JPEG compression."""
    extra = {}
    for orientation in range(1, 9):
        exif, buffer = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        Image.open(io.BytesIO(TRAIN["cat/0.jpg"])).rotate(orientation).save(buffer, "JPEG", exif=exif)
        extra[f"cat/turned{orientation}.jpg"] = buffer.getvalue()
    write_files(tmp_path / "raw/train", {**TRAIN, **extra})
    write_files(tmp_path / "raw/val", VAL)
    assert run_prepare(tmp_path, exif_orientation=True).returncode == 0
    split = Split(tmp_path / "data/folder", "train")
    assert split.manifest["exif_orientation"] is True
    turned = set()
    for index, name in enumerate(split.ids):
        original, stored = {**TRAIN, **extra}[name], split.encoded(index)
        if stored == original:
            continue
        turned.add(name)
        expected, found = upright(original).convert("RGB"), Image.open(io.BytesIO(stored))
        assert 0x0112 not in found.getexif()
        assert found.size == expected.size
        assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).mean() < 3
    assert turned == {*(f"{name}/2.jpg" for name in CLASSES), *(f"cat/turned{each}.jpg" for each in range(2, 9))}
    kinds = {each["kind"] for each in split.manifest["splits"]["train"]["oddities"]}
    assert "EXIF orientation 6, turned upright" in kinds
    stale = run_moonshine("prepare", cwd=tmp_path)
    assert "has these data already" in stale.stderr


def test_grey_images_keep_one_channel(tmp_path: Path) -> None:
    """Scaled ones are stored as grey JPEGs."""
    write_files(tmp_path / "raw", TRAIN)
    content = prepared(tmp_path, channels=1, resize=28)
    manifest = read_manifest(tmp_path / "data/folder")
    assert (manifest["shape"], manifest["normalisation"]) == ([1, 24, 24], {"mean": [0.449], "std": [0.226]})
    for _, encoded in content["train"]:
        assert Image.open(io.BytesIO(encoded)).mode == "L"
        assert min(decode(encoded, "it", channels=1).size) == 28


# What cannot be prepared


def write_pairs(raw: Path, *names: str) -> None:
    write_files(raw, {f"{name}/{index}.jpg": b"not read" for name in names for index in range(2)})


def write_parquet(raw: Path, contents: Any, paths: Any, columns: Sequence[str] = ("image", "label")) -> None:
    """A shard of such images, all of class 0."""
    image = pa.StructArray.from_arrays([pa.array(contents), pa.array(paths)], ["bytes", "path"])
    labels = [pa.array([0] * len(image))] * (len(columns) - 1)
    (raw / "data").mkdir(parents=True)
    pq.write_table(pa.table([image, *labels], [*columns]), raw / "data/train-00000-of-00001.parquet")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (
        lambda raw: raw.mkdir(),
        "no images found; needs train/ and val/ with a folder per class, a folder per",
    ),
    "images without folders": (
        lambda raw: write_files(raw, {"1.jpg": b""}),
        "1.jpg is in no class's folder; move each image into a folder named after its class, or list paths and labels "
        "in a CSV file and name that in dataset.labels",
    ),
    "splits without folders": (
        lambda raw: write_files(raw, {"train/1.jpg": b"", "val/2.jpg": b""}),
        "train/1.jpg is in no class's folder; move each image into a folder named after its class",
    ),
    "a table that is not named": (
        lambda raw: write_files(raw, {"1.jpg": b"", "labels.csv": b"path,label"}),
        "has no folders of two classes, but labels.csv; if that has the columns path and label, write `labels: "
        "labels.csv` into dataset (for `moonshine new`: --labels labels.csv)",
    ),
    "a table beside a folder of images": (
        lambda raw: write_files(raw, {"images/1.jpg": b"", "all.csv": b"path,label"}),
        "has no folders of two classes, but all.csv; if that has the columns path and label, write `labels: all.csv`",
    ),
    "one class": (lambda raw: write_pairs(raw, "cat"), "has only one class, 'cat'; a classifier needs two"),
    "classes one folder below": (lambda raw: write_pairs(raw, "all/cat", "all/dog"), "all, name that in machine.raw"),
    "a class of one image": (
        lambda raw: write_files(raw, {"cat/1.jpg": b"", "dog/1.jpg": b"", "dog/2.jpg": b""}),
        "class 'cat' has one image; it needs two, for training and for validation",
    ),
    "a class that a split lacks": (
        lambda raw: write_pairs(raw, "train/cat", "train/dog", "val/cat"),
        "val: has no class 'dog', ",
    ),
    "a class of another case": (
        lambda raw: write_pairs(raw, "train/cat", "train/dog", "val/Cat", "val/dog"),
        "has no class 'Cat', but 'cat', which differs only in upper and lower case; rename one of them",
    ),
    "names equal but for case": (
        lambda raw: write_pairs(raw, "cat", "Cat"),
        "has the class 'cat', but 'Cat', which differs only in upper and lower case; rename one of them",
    ),
    "a colon": (
        lambda raw: write_pairs(raw, "cat", "a:b"),
        "a:b: not a name that a folder can have on Windows; rename",
    ),
    "a dot at the end": (
        lambda raw: write_pairs(raw, "cat", "etc."),
        "etc.: not a name that a folder can have on Wind",
    ),
    "a device": (lambda raw: write_pairs(raw, "cat", "Aux"), "Aux: not a name that a folder can have on Windows"),
    "train alone": (lambda raw: write_pairs(raw, "train/cat", "train/dog"), "has train/ but no val/ (or valid, valida"),
    "val alone": (lambda raw: write_pairs(raw, "val/cat", "val/dog"), "has val/ but no train/"),
    "two validation splits": (
        lambda raw: write_pairs(raw, "train/cat", "train/dog", "val/cat", "validation/cat"),
        "has both val and validation; leave one of them for validation",
    ),
    "a shard missing": (
        lambda raw: (write_shards(raw, "train", rows_of(TRAIN), CLASSES), next(raw.glob("data/*0-of*")).unlink()),
        "shard 0 of 2 of train is missing, 1 in all; get them again",
    ),
    "a damaged shard": (
        lambda raw: write_files(raw, {"data/train-00000-of-00001.parquet": b"PAR1 not"}),
        "damaged, or not Parquet (",
    ),
    "a label outside": (
        lambda raw: write_shards(raw, "train", [("1", b"", 7), ("2", b"", 0)], CLASSES, count=1),
        "has the label 7, outside 0..2",
    ),
    "a label beyond all images": (
        lambda raw: write_shards(raw, "train", [("1", b"", 0), ("2", b"", 2**40)], None, count=1),
        f"has the label {2**40}, but 2 images; every class needs some",
    ),
    "shards of two versions": (
        lambda raw: [write_shards(raw, "train", rows_of(TRAIN), CLASSES, count=count) for count in (2, 3)],
        "train-00000-of-00002.parquet and train-00000-of-00003.parquet are of two versions of train; leave one",
    ),
    "a shard of another version": (
        lambda raw: (
            [write_shards(raw, "train", rows_of(TRAIN), CLASSES, count=count) for count in (2, 3)],
            next(raw.glob("data/*0-of-00002*")).unlink(),
            *(path.unlink() for path in raw.glob("data/*[12]-of-00003*")),
        ),
        "train-00000-of-00003.parquet and train-00001-of-00002.parquet are of two versions of train; leave one",
    ),
    "a path that is not UTF-8": (
        lambda raw: write_parquet(raw, [b""], pa.array([b"\xff"]).view(pa.string())),
        "a path in it is not UTF-8; get it again",
    ),
    "text instead of images": (
        lambda raw: write_parquet(raw, ["text"], ["1"]),
        "its columns are image, label; needs image, of bytes and path, and label, an integer",
    ),
    "a column twice": (
        lambda raw: write_parquet(raw, [b""], ["1"], ["image", "label", "label"]),
        "its columns are image, label, label; needs image, of bytes and path, and label, an integer",
    ),
    "a class without rows": (
        lambda raw: write_shards(raw, "train", [(str(i), b"", i % 2) for i in range(8)], CLASSES, count=1),
        "class 'dog' has no image; it needs two, for training and for validation",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_layout_is_told_in_one_line(kind: str, tmp_path: Path) -> None:
    write, reason = REFUSED[kind]
    write(tmp_path / "raw")
    with pytest.raises(DataError) as refused:
        find_layout(tmp_path / "raw")
    assert reason in str(refused.value)
    assert str(tmp_path / "raw") in str(refused.value)
    assert "\n" not in str(refused.value)


TABLES = {
    "other columns": ("file,class\na,b\n", "its columns are file, class; needs path and label, may have split"),
    "no label": ("path,label\n1.jpg,cat\n2.jpg,\n", "line 3: path and label must not be empty"),
    "a path outside": ("path,label\n../1.jpg,cat\n", "line 2: ../1.jpg is not a file below the folder of images"),
    "an absolute path": ("path,label\n/etc/passwd,cat\n", "line 2: /etc/passwd is not a file below the folder"),
    "a row twice": ("path,label\n1.jpg,cat\n./1.jpg,dog\n", "line 3: 1.jpg is in it twice"),
    "missing files": (
        "path,label\n" + "".join(f"{i}.png,cat\n" for i in range(5)),
        "names files that are missing: 0.png, 1.png, 2.png and 2 more",
    ),
    "a name that no file can have": (
        f"path,label\n{'x' * 300}.jpg,cat\n",
        f"names files that are missing: {'x' * 300}.jpg",
    ),
    "no rows": ("path,label,split\n", "has no rows; needs one for each image"),
    "another split": ("path,label,split\n1.jpg,cat,dev\n", "line 2: split is 'dev'; must be one of train, val, valid"),
    "no training split": ("path,label,split\n1.jpg,cat,val\n", "split has val; needs train and val"),
    "not text": ("\x00\xff", "labels.csv: "),
}


@pytest.mark.parametrize("kind", TABLES)
def test_what_is_wrong_with_a_table_is_told_with_its_line(kind: str, tmp_path: Path) -> None:
    text, reason = TABLES[kind]
    write_files(tmp_path, {"1.jpg": b"", "2.jpg": b"", "labels.csv": text.encode("latin-1")})
    with pytest.raises(DataError) as refused:
        find_layout(tmp_path, labels="labels.csv")
    assert str(refused.value).startswith(f"{tmp_path / 'labels.csv'}: ")
    assert reason in str(refused.value)


def test_a_share_in_addition_to_a_split_is_refused(tmp_path: Path) -> None:
    with_folders("val")(tmp_path / "raw")
    (line,) = refusal(tmp_path, validation_share=0.2)
    assert line.endswith("has a validation split of its own; leave out dataset.validation_share")


def test_images_in_both_splits_are_refused(tmp_path: Path) -> None:
    """Whatever they are called there; both names help to find them."""
    write_files(tmp_path / "raw/train", TRAIN)
    write_files(tmp_path / "raw/val", {**VAL, "cat/x.jpg": TRAIN["cat/3.jpg"], "dog/y.jpg": TRAIN["dog/1.jpg"]})
    (line,) = refusal(tmp_path)
    assert line.startswith("train: cat/3.jpg and val: cat/x.jpg have the same content, and 1 more images are in both;")


def test_unreadable_images_of_both_splits_are_counted(tmp_path: Path) -> None:
    """With the first hundred named."""
    bad: Pictures = {f"cat/bad{index:03d}.jpg": b"<html>404</html>" for index in range(103)}
    write_files(tmp_path / "raw/train", {**TRAIN, **bad})
    write_files(tmp_path / "raw/val", {**VAL, "dog/bad.jpg": VAL["dog/0.jpg"][:200]})
    lines = refusal(tmp_path)
    assert lines[0] == "train: cat/bad000.jpg: cannot be decoded (cannot identify image file)"
    assert lines[100] == "train: and 3 more images that cannot be decoded"
    assert lines[101].startswith("val: dog/bad.jpg: cannot be decoded (")
    assert len(lines) == 102


# ImageNet


def imagenet_sums(folder: Path, **settings: Any) -> dict[str, str]:
    result = run_prepare(folder, "imagenet", 4, **settings)
    assert result.returncode == 0, result.stderr
    return files_below(folder / "data/imagenet", ".arrow")


def test_imagenet_is_the_same_from_archives_tree_kaggle_and_shards(tmp_path: Path) -> None:
    """Byte for byte, with the same classes; words where there are any."""
    archives = Archives(classes=4, train=7, val=20)
    expected = imagenet_sums(tmp_path_of(tmp_path, "archives"), files=archives.write(tmp_path / "archives/raw"))
    manifest = read_manifest(tmp_path / "archives/data/imagenet")
    for kind, write in (("tree", write_imagenet_tree), ("kaggle", write_kaggle), ("shards", write_imagenet_shards)):
        folder = tmp_path_of(tmp_path, kind)
        write(folder / "raw", archives)
        assert imagenet_sums(folder) == expected, kind
        made = read_manifest(folder / "data/imagenet")
        assert (made["classes"], made["splits"]) == (manifest["classes"], manifest["splits"])
        assert made["origin"].get("words") == (manifest["origin"]["words"] if kind == "kaggle" else None)
        assert [path.name for path in (folder / "runs/prepare/imagenet").rglob("tmp*")] == []


def tmp_path_of(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


IMAGENET_REFUSED: dict[str, tuple[Callable[[Path, Archives], object], str]] = {
    "archives that params leave out": (lambda raw, a: a.write(raw), "its archives must be named by dataset.files"),
    "validation images in no folders": (
        lambda raw, a: (
            write_imagenet_tree(raw, a),
            [path.rename(raw / "val" / path.name) for path in raw.glob("val/*/*")],
            [path.rmdir() for path in raw.glob("val/n*") if path.is_dir()],
        ),
        "val: its classes must be those of train/; it has no folders of classes",
    ),
    "an image of another class": (
        lambda raw, a: (
            write_imagenet_tree(raw, a),
            next((raw / "train" / a.wnids[0]).iterdir()).rename(raw / "train" / a.wnids[1] / "x_1.JPEG"),
        ),
        "x_1.JPEG: not an image of ",
    ),
    "a solution without an image": (
        lambda raw, a: (
            write_kaggle(raw, a),
            write_table(raw / "LOC_val_solution.csv", [], ("ImageId", "PredictionString")),
        ),
        "LOC_val_solution.csv: has no ILSVRC2012_val_00000001, an image in ",
    ),
    "no solution": (
        lambda raw, a: (write_kaggle(raw, a), (raw / "LOC_val_solution.csv").unlink()),
        "LOC_val_solution.csv: cannot be read (No such file or directory); it has the labels",
    ),
    "other shards": (
        lambda raw, a: [write_shards(raw, split, rows_of(TRAIN), CLASSES) for split in ("train", "validation")],
        "row 0 is named 'bird/0.jpg', not as an image of ILSVRC2012",
    ),
}


@pytest.mark.parametrize("kind", IMAGENET_REFUSED)
def test_what_is_no_imagenet_is_told(kind: str, tmp_path: Path) -> None:
    write, reason = IMAGENET_REFUSED[kind]
    write(tmp_path / "raw", Archives(classes=4, train=2, val=8, odd=False))
    result = run_prepare(tmp_path, "imagenet", 4)
    assert (result.returncode, reason in result.stderr) == (3, True), result.stderr
    assert not (tmp_path / "data").exists()


MEMORY = """
import sys
from pathlib import Path
from moonshine.preparation.imagenet_layouts import find_imagenet
from moonshine.preparation.raw_images import RawImages
raw = RawImages(find_imagenet(Path("raw")), Path("."))
assert sum(len(image.encoded) for image in raw.split("train")) > int(sys.argv[1])
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def test_memory_does_not_grow_with_shards(tmp_path: Path) -> None:
    """Although they are shuffled; a group of rows may be in memory."""
    peaks = []
    val: list[tuple[str | None, bytes, int]] = [(f"ILSVRC2012_val_0000000{i}.JPEG", b"", i) for i in (0, 1)]
    content = np.random.default_rng(0).bytes(200_000)
    for count in (16, 512):
        folder = tmp_path_of(tmp_path, str(count))
        train: list[tuple[str | None, bytes, int]] = [
            (f"n0000000{label}_{number}_n0000000{label}.JPEG", content + number.to_bytes(2), label)
            for number in range(count // 2)
            for label in (0, 1)
        ]
        for split, rows in (("train", train), ("validation", val)):
            write_shards(folder / "raw", split, rows, None, count=1, group=16)
        peaks.append(int(run(sys.executable, "-c", MEMORY, str(count * len(content)), cwd=folder).stdout))
    assert peaks[1] - peaks[0] < 25_000, "KiB more for 99 MB more"
