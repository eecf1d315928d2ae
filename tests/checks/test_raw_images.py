"""What changed in the folder of raw images since they were prepared is said, with the command that takes it in."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.separate_project import write_params
from moonshine.params.schema import Params
from moonshine.preparation.raw_images import raw_changes
from moonshine.runs.raw_files import RECORD
from tests.support.imagenet_archives import jpeg, jpeg_params
from tests.support.layouts import CLASSES, pictures, rows_of, write_files, write_shards
from tests.support.project import copy_project, once_per_run, run_moonshine

CURE = "run `moonshine prepare && moonshine sync`"


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose images, in raw/, have been prepared."""

    def make(folder: Path) -> None:
        params = jpeg_params("folder", Path("raw"), len(CLASSES))
        params["attention_maps"]["images"] = [0]
        write_files(copy_project(folder / "project", params) / "raw", pictures())
        run_moonshine("prepare", cwd=folder / "project")

    made = once_per_run(tmp_path_factory, "raw-images", make) / "project"
    shutil.copytree(made, tmp_path / "project", symlinks=True)  # with other inode change times
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def changes() -> str | None:
    return raw_changes(Params(**jpeg_params("folder", Path("raw"), len(CLASSES))))


def test_each_command_says_it_until_it_is_taken_in(project: Path) -> None:
    assert "since data/folder" not in run_moonshine("status", cwd=project).stdout
    (project / "raw/cat/new.jpg").write_bytes(jpeg(500))
    (project / "raw/dog/0.jpg").unlink()
    (project / "raw/dog/1.jpg").write_bytes(jpeg(501))
    said = (
        "raw: 1 file added (cat/new.jpg), 1 file removed (dog/0.jpg), 1 file changed (dog/1.jpg) "
        f"since data/folder was prepared; {CURE}"
    )
    assert said in run_moonshine("status", cwd=project).stdout.splitlines()
    assert json.loads(run_moonshine("status", "--json", cwd=project).stdout)["raw_images"] == said
    assert f"warning: {said}" in run_moonshine("check", cwd=project).stderr.splitlines()
    verified = run_moonshine("verify", cwd=project, check=False)
    assert verified.returncode == 3
    assert f"data/folder/manifest.json: not of the images there are now: {said}" in verified.stderr
    run_moonshine("prepare", cwd=project)
    assert changes() is None
    assert "since data/folder" not in run_moonshine("verify", cwd=project, check=False).stderr


def test_a_new_class_is_said_to_be_counted_first(project: Path) -> None:
    write_files(project / "raw", {f"owl/{index}.jpg": jpeg(600 + index) for index in range(3)})
    now = len(CLASSES) + 1
    said = (
        "raw: 3 files added (owl/0.jpg, owl/1.jpg, ...) since data/folder was prepared; set dataset.classes, which is "
        f"{len(CLASSES)}, to {now} in experiments/, run `moonshine use` again, and then "
        "`moonshine prepare && moonshine sync`"
    )
    assert said in run_moonshine("status", cwd=project).stdout.splitlines()
    refused = run_moonshine("prepare", cwd=project, check=False)
    assert refused.returncode == 2
    line = f"dataset.classes: {len(CLASSES)}, but folder has {now}; correct it in experiments/ and run `moonshine use`"
    assert f"error: {line} again\n" in refused.stderr


def touched(path: Path) -> None:
    os.utime(path)


def copied(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


@pytest.mark.parametrize("change", [touched, copied])
def test_times_alone_are_no_change(change: Callable[[Path], None], project: Path) -> None:
    for path in sorted(project.glob("raw/cat/*")):
        change(path)
    before = next(project.glob(f"runs/prepare/folder/*/{RECORD}")).read_bytes()
    assert changes() is None
    noted = next(project.glob(f"runs/prepare/folder/*/{RECORD}")).read_bytes()
    assert noted != before, "so that the contents are not compared again"
    assert changes() is None


def test_a_file_of_equal_size_and_date_is_still_another(project: Path) -> None:
    path = project / "raw/cat/0.jpg"
    times, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert str(changes()).startswith("raw: 1 file changed (cat/0.jpg) since ")


def test_unchanged_images_are_not_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert changes() is None  # which notes the times of this copy
    monkeypatch.setattr("moonshine.runs.raw_files.sha256", lambda path: pytest.fail(f"{path} was read"))
    assert changes() is None


def test_images_that_cannot_be_prepared_any_more_are_said(project: Path) -> None:
    shutil.rmtree(project / "raw/cat")
    (project / "raw/cat").mkdir()
    assert changes() == "raw/cat: no image in it; every class needs some; data/folder was prepared before that"


def test_without_a_record_images_are_counted(project: Path) -> None:
    """As after `dvc pull`; and nothing is said where the raw folder is not."""
    shutil.rmtree(project / "runs")
    assert changes() is None
    for index in range(10):
        (project / f"raw/cat/new{index}.jpg").write_bytes(jpeg(500 + index))
    assert str(changes()).startswith("raw: train has 23 images, not 15, val has 5 images, not 3 since data/folder was ")
    shutil.rmtree(project / "raw")
    assert changes() is None


def test_changed_shards_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, jpeg_params("folder", Path("raw"), len(CLASSES)))
    write_shards(tmp_path / "raw", "train", rows_of(pictures()), CLASSES)
    run_moonshine("prepare", cwd=tmp_path)
    shard = next((tmp_path / "raw/data").glob("*00001-of*"))
    os.utime(shard, (0, time.time()))
    assert changes() is None
    write_shards(tmp_path / "raw", "train", rows_of(pictures(200)), CLASSES)
    assert "2 files changed (data/train-00000-of-00002.parquet, data/train-00001" in str(changes())
