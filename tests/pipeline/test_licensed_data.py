"""Licensed data is hashed once, lies on the disk once, is never pushed, and goes only when new data is complete."""

import re
import resource
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.separate_project import environment, write_params
from tests.faults.forked import Result, command, start
from tests.support.imagenet_archives import jpeg_params
from tests.support.plans import params_change, planned_by_dvc, planned_by_snakemake
from tests.support.project import copy_finished, copy_project, files_below, run, run_moonshine, toy_params

BIG = "data/digits/train.arrow"
SIZE = 300_000_000


def bytes_read(*command: str, project: Path, log: Path) -> int:
    """How much of the big file a command and its children read."""
    calls = "trace=read,pread64,readv,preadv,copy_file_range,sendfile,mmap"
    run("strace", "-f", "-y", "-qq", "-e", calls, "-o", str(log), *command, cwd=project)
    with log.open(errors="replace") as lines:
        own = [line for line in lines if BIG in line]
    assert not any("mmap(" in line for line in own)
    return sum(int(found[1]) for line in own if (found := re.search(r"= (\d+)$", line)))


@pytest.mark.slow
def test_hashed_once_on_the_disk_once_never_pushed(by_snakemake: Path, tmp_path: Path) -> None:
    project, log = copy_finished(by_snakemake, tmp_path / "project"), tmp_path / "strace"
    params_change(dataset__shared=[], dataset__licensed=["digits"])(project)
    run("snakemake", "--cores", "1", "data/digits/manifest.json", cwd=project)
    assert "prepare_licensed@digits" not in planned_by_dvc(project)
    with (project / BIG).open("r+b") as file:  # as large as makes a copy or a second reading show
        file.truncate(SIZE)
    python = environment()["PATH"].split(":")[0] + "/python"
    as_recorded = "from moonshine.engines.record import *; commit(Repo(), ['prepare_licensed@digits'])"
    assert bytes_read(python, "-c", as_recorded, project=project, log=log) == SIZE

    sync = (python, "-m", "moonshine", "sync")
    assert bytes_read(*sync, project=project, log=log) == 0
    assert "Snakemake and dvc.lock agree" in run_moonshine("sync", cwd=project).stderr
    for asked in (("dvc", "status"), ("snakemake", "--dry-run"), sync):
        assert bytes_read(*asked, project=project, log=log) == 0
    planned = planned_by_dvc(project)
    assert planned == planned_by_snakemake(project)
    assert "prepare_licensed@digits" not in planned, "the data is as it was recorded, only its time has changed"

    kept = [path for path in (project / "runs/prepare").rglob("train.arrow") if path.samefile(project / BIG)]
    assert (project / BIG).stat().st_nlink == 1 + len(kept) == 2
    assert sum(path.stat().st_size for path in (project / ".dvc/cache").rglob("*") if path.is_file()) < SIZE / 10
    remote = tmp_path / "remote"
    run("dvc", "remote", "add", "--default", "storage", str(remote), cwd=project)
    run("dvc", "push", cwd=project)
    sizes = [path.stat().st_size for path in remote.rglob("*") if path.is_file()]
    assert sizes
    assert max(sizes) < SIZE / 10


DIGITS = "data/digits"


def digits_params(**dataset: Any) -> dict[str, Any]:
    params = toy_params()
    params["dataset"].update(shared=[], licensed=["digits"], **dataset)
    return params


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, prepared by hand."""
    folder = tmp_path_factory.mktemp("prepared") / "project"
    folder.mkdir()
    write_params(folder, digits_params())
    assert command(folder, "prepare").code == 0
    return folder


@pytest.fixture
def digits(prepared: Path, tmp_path: Path) -> Path:
    """A copy of them, with params that ask for others."""
    folder = copy_finished(prepared, tmp_path / "project")
    write_params(folder, digits_params(validation=300))
    return folder


def small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def stopped(folder: Path, number: signal.Signals) -> Result:
    running = start(folder, "prepare", pause="preparing")
    running.kill(number)
    running.go_on()
    return running.finish()


FAILURES = {
    "SIGTERM": (partial(stopped, number=signal.SIGTERM), 143),
    "SIGKILL": (partial(stopped, number=signal.SIGKILL), -9),
    "full disk": (lambda folder: command(folder, "prepare", prepare=small_files_only), 9),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("deleted", [False, True], ids=["by hand", "deleted by an engine"])
def test_data_of_before_outlive_a_prepare_that_fails(failure: str, deleted: bool, prepared: Path, digits: Path) -> None:
    fail, code = FAILURES[failure]
    golden = files_below(prepared / DIGITS)
    if deleted:
        shutil.rmtree(digits / DIGITS)
    result = fail(digits)
    assert result.code == code
    if deleted and failure == "SIGKILL":
        assert not (digits / DIGITS).exists()
    else:
        assert files_below(digits / DIGITS) == golden
    if failure != "SIGKILL":
        assert "keeps the previous data" in result.output
        assert not list(digits.glob("runs/prepare/*/unfinished"))
    write_params(digits, digits_params())
    result = command(digits, "prepare")
    assert (result.code, "train: " in result.output) == (0, False), "published, not prepared"
    assert files_below(digits / DIGITS) == golden
    assert len(list(digits.glob("runs/prepare/digits/*/"))) == 1


@pytest.mark.parametrize(
    "name", [*(pytest.param(f"{split}.arrow", marks=pytest.mark.slow) for split in ("train", "val")), "manifest.json"]
)
def test_a_kill_while_data_are_published_leaves_all_or_no_manifest(name: str, prepared: Path, digits: Path) -> None:
    traced = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", f"{DIGITS}/.{name}.tmp-link")
    kill = ("-e", "trace=rename", "-e", "inject=rename:signal=SIGKILL")
    run(*traced, *kill, sys.executable, "-m", "moonshine", "prepare", cwd=digits, check=False)
    assert not (digits / DIGITS / "manifest.json").exists()
    result = command(digits, "prepare")
    assert (result.code, "train: " in result.output) == (0, False), "published, not prepared"
    assert sorted(files_below(digits / DIGITS)) == ["manifest.json", "train.arrow", "val.arrow"]
    assert files_below(digits / DIGITS) != files_below(prepared / DIGITS)
    assert len(list(digits.glob("runs/prepare/digits/*/"))) == 1


@pytest.mark.parametrize("name", ["train.arrow", "manifest.json"])
def test_damaged_data_are_prepared_again(name: str, prepared: Path, tmp_path: Path) -> None:
    folder = copy_finished(prepared, tmp_path / "project")
    with (folder / DIGITS / name).open("r+b") as file:  # in place, and so what is kept as well
        file.seek(100)
        file.write(b"damage")
    assert f"{name}: damaged, so the data are prepared again" in command(folder, "prepare").output
    assert files_below(folder / DIGITS) == files_below(prepared / DIGITS)


def test_where_links_fail_data_are_copied(prepared: Path, tmp_path: Path) -> None:
    folder = copy_finished(prepared, tmp_path / "project")
    shutil.rmtree(folder / DIGITS)
    no_links = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=link,linkat")
    fail = ("-e", "inject=link,linkat:error=EXDEV")
    run(*no_links, *fail, sys.executable, "-m", "moonshine", "prepare", cwd=folder)
    assert files_below(folder / DIGITS) == files_below(prepared / DIGITS)
    assert all(path.stat().st_nlink == 1 for path in (folder / DIGITS).iterdir())


PREPARED = "data/folder"
ENGINES = {
    "by hand": [sys.executable, "-m", "moonshine", "prepare"],
    "dvc": ["dvc", "repro", "--force", "prepare_licensed@folder"],
    "snakemake": ["snakemake", "--cores", "1", "--forcerun", "prepare_licensed", "--", f"{PREPARED}/manifest.json"],
}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two classes of small photographs, not yet prepared."""
    for number, path in enumerate(
        f"{split}/{name}/{n}.png" for split in ("train", "val") for name in "ab" for n in "12"
    ):
        image = tmp_path / "raw" / path
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 30, 3), 20 * number, np.uint8)).save(image)
    return copy_project(tmp_path / "project", jpeg_params("folder", tmp_path / "raw", 2))


@pytest.mark.parametrize(
    "engine",
    ["by hand", pytest.param("dvc", marks=pytest.mark.slow), pytest.param("snakemake", marks=pytest.mark.slow)],
)
def test_photographs_that_fail_cost_nothing(engine: str, photographs: Path) -> None:
    """An unreadable one, or params that are refused when the job looks at the images."""
    prepare, data = ENGINES[engine], photographs / PREPARED
    run(*prepare, cwd=photographs)
    golden = files_below(data, ".arrow", ".json")
    bad = photographs.parent / "raw/train/a/3.png"
    params = (photographs / "params.yaml").read_text()
    for fault in ("image", "params"):
        if fault == "image":
            bad.write_bytes(b"no image")
        else:
            (photographs / "params.yaml").write_text(params.replace("classes: 2", "classes: 3"))
        assert run(*prepare, cwd=photographs, check=False).returncode != 0
        assert engine == "snakemake" or files_below(data, ".arrow", ".json") == golden
        bad.unlink(missing_ok=True)
        (photographs / "params.yaml").write_text(params)
        run(*prepare, cwd=photographs)
        assert files_below(data, ".arrow", ".json") == golden
        assert "has these data already" in (photographs / "logs/prepare/folder.log").read_text().splitlines()[-1]
    image = photographs.parent / "raw/val/b/2.png"
    times = image.stat()
    other = photographs.parent / "other.png"
    Image.fromarray(np.full((30, 30, 3), 141, np.uint8)).save(other)
    assert other.stat().st_size == times.st_size
    other.replace(image)
    run("touch", "--date", f"@{times.st_mtime_ns / 1e9:.9f}", str(image), cwd=photographs)
    run(*prepare, cwd=photographs)
    assert files_below(data)["val.arrow"] != golden["val.arrow"], "another photograph of the same size and date"


@pytest.mark.slow
@pytest.mark.parametrize("link", ["copy", "hardlink", "symlink"])
def test_what_dvc_caches_is_not_what_is_published(link: str, tmp_path: Path) -> None:
    """What has become a file of its cache, which it makes read-only, is copied when it is published again."""
    project = copy_project(tmp_path / "project", toy_params())
    run("dvc", "config", "--local", "cache.type", link, cwd=project)
    run("dvc", "repro", "prepare@digits", cwd=project)
    golden = {name: (project / DIGITS / name).read_bytes() for name in ("train.arrow", "val.arrow", "manifest.json")}
    shutil.rmtree(project / DIGITS)
    run_moonshine("prepare", cwd=project)
    assert {path.name: path.read_bytes() for path in (project / DIGITS).iterdir()} == golden
    (project / BIG).write_bytes(b"edited in place")
    cached = {path.name: path.read_bytes() for path in (project / ".dvc/cache/files/md5").rglob("*") if path.is_file()}
    assert b"edited in place" not in cached.values()
    run_moonshine("prepare", cwd=project)
    run("dvc", "repro", "prepare@digits", cwd=project)
    assert (project / BIG).read_bytes() == golden["train.arrow"]
    assert run_moonshine("verify", cwd=project, check=False).stderr.count(BIG) == 0
