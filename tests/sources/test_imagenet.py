"""Damaged, short and hostile ILSVRC2012 archives end in one line with its exit code, and leave nothing behind."""

import io
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import write_params
from moonshine.errors import DataError
from moonshine.images.decoding import decode
from moonshine.images.store import Split, read_manifest
from moonshine.preparation.layouts import find_layout
from tests.support.imagenet_archives import ARCHIVES, Archives, jpeg, jpeg_params, tar_bytes
from tests.support.project import run, run_moonshine

CLASSES = 4


def run_prepare(folder: Path, files: dict[str, Any], source: str = "imagenet", **settings: Any) -> Any:
    params = jpeg_params(source, folder / "raw", CLASSES, **({"files": files} if files else {}), **settings)
    write_params(folder, params)
    return run_moonshine("prepare", cwd=folder, check=False)


def refusal(result: Any, folder: Path, code: int) -> str:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    data = folder / "data"
    assert not data.exists() or [path for path in data.rglob("*") if path.is_file()] == []
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors
    return "\n".join(errors)


def with_tar(archives: Archives, wnid: str, images: list[tuple[str, bytes]]) -> bytes:
    return tar_bytes((f"{name}.tar", tar_bytes(images if name == wnid else of)) for name, of in archives.train.items())


def damaged(kind: str, archives: Archives) -> tuple[dict[str, bytes], str]:
    """What replaces some archives, and a part of the message."""
    wnids, train = archives.wnids, archives.train
    first = wnids[0]
    if kind == "a class missing":
        return {
            "train": tar_bytes((f"{w}.tar", tar_bytes(train[w])) for w in wnids[1:])
        }, f"{first} has 0 images, not 2"
    if kind == "a class too many":
        extra = [*((f"{w}.tar", tar_bytes(train[w])) for w in wnids), ("n00000001.tar", tar_bytes([]))]
        return {"train": tar_bytes(extra)}, "'n00000001.tar' is not the tar of a class"
    if kind == "an image missing":
        return {"train": with_tar(archives, first, train[first][1:])}, f"{first} has 1 images, not 2"
    if kind == "an image of another class":
        return {"train": with_tar(archives, first, [*train[first], train[wnids[1]][0]])}, "is not an image of the class"
    if kind == "validation count off":
        return {"validation": tar_bytes(archives.val[:-1])}, "val: "
    if kind == "label out of range":
        archives.truth[0] = CLASSES + 7
        return {}, "not the devkit of ILSVRC2012"
    assert kind == "undecodable"
    broken = [(train[first][0][0], b"<html>404</html>"), (train[first][1][0], train[first][1][1][:300])]
    return {"train": with_tar(archives, first, broken)}, f"{first}_1: cannot be decoded"


KINDS = (
    "a class missing",
    "a class too many",
    "an image missing",
    "an image of another class",
    "validation count off",
    "label out of range",
    "undecodable",
)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_whole_is_named(kind: str, tmp_path: Path) -> None:
    archives = Archives(classes=CLASSES, train=2, val=8, odd=False)
    replaced, reason = damaged(kind, archives)
    line = refusal(run_prepare(tmp_path, archives.write(tmp_path / "raw", **replaced)), tmp_path, 3)
    assert reason in line
    if kind == "undecodable":
        assert line.count("cannot be decoded") == 2


@pytest.mark.parametrize("kind", ["bit flipped", "truncated", "cut at a header"])
@pytest.mark.parametrize("role", ["train", "validation", "devkit"])
def test_the_checksum_of_a_stream_is_checked(role: str, kind: str, tmp_path: Path) -> None:
    files = Archives(classes=CLASSES, train=2, val=8, odd=False).write(tmp_path / "raw")
    path = tmp_path / "raw" / ARCHIVES[role]
    content = bytearray(path.read_bytes())
    if kind == "bit flipped":
        content[-1] ^= 1  # the last byte of the padding, which tar does not look at
    else:
        del content[len(content) // 2 // 512 * 512 + (0 if kind == "cut at a header" else 77) :]
    path.write_bytes(content)
    assert ARCHIVES[role] in refusal(run_prepare(tmp_path, files), tmp_path, 3)


@pytest.mark.parametrize("role", ["train", "validation"])
def test_an_archive_cut_inside_an_image_is_named(role: str, tmp_path: Path) -> None:
    """What is left of the image is read where images are used, far from where the archive is."""
    archives = Archives(classes=CLASSES, train=2, val=8, odd=False)
    files = archives.write(tmp_path / "raw")
    path = tmp_path / "raw" / ARCHIVES[role]
    image = archives.train[archives.wnids[1]][1][1] if role == "train" else archives.val[5][1]
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(image) + 100])
    line = refusal(run_prepare(tmp_path, files), tmp_path, 3)
    assert f"{ARCHIVES[role]}: truncated or damaged (unexpected end of data); get it again" in line


HOSTILE = {
    "traversal": ("../../outside.JPEG", tarfile.REGTYPE, ""),
    "absolute": ("/outside-of-everything.JPEG", tarfile.REGTYPE, ""),
    "symbolic link": ("link.JPEG", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": ("link.JPEG", tarfile.LNKTYPE, "../outside"),
    "device": ("null.JPEG", tarfile.CHRTYPE, ""),
}


@pytest.mark.parametrize("inner", [True, False], ids=["in a class's tar", "in the archive"])
@pytest.mark.parametrize("member", HOSTILE.values(), ids=HOSTILE)
def test_hostile_members_are_refused_and_nothing_is_written(
    member: tuple[str, bytes, str], inner: bool, tmp_path: Path
) -> None:
    archives = Archives(classes=CLASSES, train=2, val=8, odd=False)
    info = tarfile.TarInfo(member[0])
    info.type, info.linkname = member[1], member[2]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(info)
    first = archives.wnids[0]
    train = tar_bytes([(f"{first}.tar", buffer.getvalue())]) if inner else buffer.getvalue()
    before = set(tmp_path.parent.rglob("*outside*"))
    line = refusal(run_prepare(tmp_path, archives.write(tmp_path / "raw", train=train)), tmp_path, 4)
    assert repr(member[0]) in line
    assert set(tmp_path.parent.rglob("*outside*")) == before


def test_a_claim_of_terabytes_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("n00000001.tar")
    info.size = 1 << 42
    archives = Archives(classes=CLASSES, train=2, val=8, odd=False)
    files = archives.write(tmp_path / "raw", train=info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "claims 4,398,046,511,104 bytes" in refusal(run_prepare(tmp_path, files), tmp_path, 4)


def write_folder(raw: Path) -> None:
    """Four classes of one image in both splits."""
    for number, split in enumerate(("train", "val")):
        for name in ("a", "b", "c", "d"):
            (raw / split / name).mkdir(parents=True)
            (raw / split / name / "1.jpg").write_bytes(jpeg(1 + 10 * number))


def test_a_folder_needs_the_same_classes_in_both_splits(tmp_path: Path) -> None:
    write_folder(tmp_path / "raw")
    assert run_prepare(tmp_path, {}, "folder").returncode == 0
    for made in ("data", "runs"):
        shutil.rmtree(tmp_path / made)
    (tmp_path / "raw/val/d/1.jpg").unlink()
    assert "val/d: no image in it" in refusal(run_prepare(tmp_path, {}, "folder"), tmp_path, 3)
    (tmp_path / "raw/val/d").rmdir()
    assert "has no class 'd'" in refusal(run_prepare(tmp_path, {}, "folder"), tmp_path, 3)


def test_unreadable_images_of_both_splits_are_named_at_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "raw")
    broken = ("train/a/1.jpg", "train/c/1.jpg", "val/b/1.jpg")
    for name in broken:
        (tmp_path / "raw" / name).write_bytes(b"<html>404</html>")
    lines = refusal(run_prepare(tmp_path, {}, "folder"), tmp_path, 3).splitlines()
    named = [name.replace("/", ": ", 1) for name in broken]
    assert [line.partition(": cannot be decoded")[0] for line in lines] == [f"error: {name}" for name in named]


def test_a_class_spelt_in_another_normalisation_is_told(tmp_path: Path) -> None:
    """As macOS spells it in one split; the two look the same."""
    write_folder(tmp_path / "raw")
    (tmp_path / "raw/train/a").rename(tmp_path / "raw/train/caf\u00e9")
    (tmp_path / "raw/val/a").rename(tmp_path / "raw/val/cafe\u0301")
    with pytest.raises(DataError, match=r"differs from .* only in Unicode normalisation; rename one of them$"):
        find_layout(tmp_path / "raw")


def test_a_name_that_commands_a_terminal_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "raw")
    (tmp_path / "raw/train/a").rename(tmp_path / "raw/train/a\x1b[2J\nb")
    with pytest.raises(DataError, match=r"/a\\x1b\[2J\\nb: its name has control characters; rename it$"):
        find_layout(tmp_path / "raw")


def test_what_is_no_image_is_not_taken_for_a_class_or_an_image(tmp_path: Path) -> None:
    write_folder(tmp_path / "raw")
    (tmp_path / "raw/train/notes.txt").write_text("of whom the pictures are")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (tmp_path / "raw/train/a" / name).write_bytes(b"of the desktop")
    result = run_prepare(tmp_path, {}, "folder")
    assert result.returncode == 0, result.stderr
    train = Split(tmp_path / "data/folder", "train")
    assert train.manifest["classes"] == ["a", "b", "c", "d"]
    assert train.ids == ["a/1.jpg", "b/1.jpg", "c/1.jpg", "d/1.jpg"]


def test_an_image_of_another_format_is_odd_only_under_a_jpegs_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "raw")
    for name in ("2.png", "3.JPG"):
        (tmp_path / "raw/train/a" / name).write_bytes(jpeg(1, kind="PNG"))
    assert run_prepare(tmp_path, {}, "folder").returncode == 0
    oddities = read_manifest(tmp_path / "data/folder")["splits"]["train"]["oddities"]
    assert oddities == [{"index": 2, "id": "a/3.JPG", "kind": "PNG under a JPEG's name"}]


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("train/a/2.jpg", lambda path: path.symlink_to("gone"), "a link to gone, which cannot be read (No such file"),
        ("train/a/2.jpg", lambda path: path.symlink_to(path), "cannot be read (Too many levels of symbolic links)"),
        ("val/e", lambda path: path.symlink_to("gone"), "a link to gone, which cannot be read (No such file"),
        ("val/a/pipe", os.mkfifo, "not a regular file; remove it"),
        ("val/a/folder", Path.mkdir, "not a regular file; remove it"),
    ],
    ids=["dangling link", "link to itself", "dangling link for a class", "pipe", "folder"],
)
def test_what_cannot_be_an_image_is_named(name: str, make: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_folder(raw)
    make(raw / name)
    with pytest.raises(DataError, match=rf"^{re.escape(str(raw / name))}: .*{re.escape(reason)}"):
        find_layout(raw)


def test_the_manifest_of_a_folder_tells_changed_images_apart(tmp_path: Path) -> None:
    """Even scaled and of equal size, by the sum that sha256sum gives."""
    write_folder(tmp_path / "raw")
    origins = []
    for seed in (1, 2):
        (tmp_path / "raw/train/b/1.jpg").write_bytes(jpeg(seed))
        assert run_prepare(tmp_path, {}, "folder", resize=26).returncode == 0
        origins.append(read_manifest(tmp_path / "data/folder")["origin"])
    printed = run("sh", "-c", "sha256sum */* | sha256sum", cwd=tmp_path / "raw/train")
    assert origins[1]["train"] == {"images": 4, "sha256": printed.stdout.split()[0]}
    assert origins[0]["train"] != origins[1]["train"]
    assert origins[0]["val"] == origins[1]["val"]


@pytest.mark.parametrize("name", [b"raw/train/a/1.jpg", b"raw/val/a"])
def test_a_name_that_is_not_utf_8_is_told(name: bytes, tmp_path: Path) -> None:
    write_folder(tmp_path / "raw")
    path = tmp_path / os.fsdecode(name + b"\xff")
    (tmp_path / os.fsdecode(name)).rename(path)
    line = refusal(run_prepare(tmp_path, {}, "folder"), tmp_path, 3)
    assert f"{str(path)!r}: its name is not UTF-8; rename it" in line


def test_resizing_at_preparation_shrinks_large_images_only(tmp_path: Path) -> None:
    archives = Archives(classes=CLASSES, train=2, val=8)
    assert run_prepare(tmp_path, archives.write(tmp_path / "raw"), resize=26).returncode == 0
    split = Split(tmp_path / "data/imagenet", "train")
    assert {min(decode(split.encoded(i), "it").size) for i in range(len(split))} == {26}
