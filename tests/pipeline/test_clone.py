"""A clone gets everything from a remote and has nothing left to do; published models can be had by name."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from benchmarks.separate_project import IDENTITY, commit_all
from moonshine.runtime.files import sha256
from tests.support.plans import (
    AFTER_DISTIL,
    COMPARE,
    EVALUATE_DISTIL,
    EVALUATE_TRAIN,
    MAPS,
    REPORT,
    comment,
    planned_by_dvc,
    planned_by_snakemake,
)
from tests.support.project import copy_finished, copy_project, files_below, run, run_moonshine, toy_params

STUDENT = "models/toy/distil/at/student/seed0.safetensors"
S3 = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def published(by_snakemake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished experiment committed to git, its artefacts pushed to a remote in a folder."""
    folder = tmp_path_factory.mktemp("published")
    project = copy_finished(by_snakemake, folder / "project")
    run("dvc", "remote", "add", "--default", "storage", str(folder / "storage"), cwd=project)
    run("dvc", "push", cwd=project)
    commit_all(project, "Results")
    run("git", *IDENTITY, "tag", "--annotate", "--message", "published", "toy-student@v1.0.0", cwd=project)
    return project


def clone(project: Path, folder: Path) -> Path:
    run("git", "clone", "--quiet", str(project), str(folder), cwd=project.parent)
    return folder


def assert_nothing_to_do(project: Path) -> None:
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()
    assert "Running stage" not in run("dvc", "repro", cwd=project).stdout
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


@pytest.mark.parametrize(
    "link",
    ["copy", pytest.param("hardlink", marks=pytest.mark.slow), pytest.param("symlink", marks=pytest.mark.slow)],
)
def test_a_clone_pulls_and_has_nothing_to_do(link: str, published: Path, tmp_path: Path) -> None:
    project = clone(published, tmp_path / "clone")
    run("dvc", "config", "--local", "cache.type", link, cwd=project)
    run("dvc", "pull", cwd=project)
    student = project / STUDENT
    kind = "symlink" if student.is_symlink() else "hardlink" if student.stat().st_nlink > 1 else "copy"
    assert kind == link
    run_moonshine("sync", cwd=project)
    assert_nothing_to_do(project)
    # and a change is noticed by both, although nothing here was ever run
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("beta: 30.0", "beta: 20.0"))
    assert planned_by_dvc(project) == planned_by_snakemake(project) == AFTER_DISTIL
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == AFTER_DISTIL


@pytest.mark.slow
def test_make_demo_in_a_clone_prints_the_tables_at_once(published: Path, tmp_path: Path) -> None:
    project = clone(published, tmp_path / "clone")
    (project / ".venv").symlink_to(sys.prefix)
    run("dvc", "pull", cwd=project)
    shown = run("make", "--old-file", ".venv/installed", "demo", "CORES=1", cwd=project)
    assert "| Student" in shown.stdout
    assert "Nothing to be done" in shown.stderr
    assert "Running stage" not in shown.stdout + shown.stderr
    assert "1 of" not in shown.stderr, "no job ran"


@pytest.mark.slow
def test_half_a_pull_plans_what_is_missing(published: Path, tmp_path: Path) -> None:
    project = clone(published, tmp_path / "clone")
    run("dvc", "pull", "prepare@digits", "train@toy-teacher-0", cwd=project)
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == AFTER_DISTIL


def test_a_published_model_is_had_by_path_and_by_name(published: Path, tmp_path: Path) -> None:
    run("dvc", "get", str(published), STUDENT, "--out", "by-path.safetensors", cwd=tmp_path)
    run("dvc", "artifacts", "get", str(published), "toy-student", "--out", "by-name", cwd=tmp_path)
    by_path, by_name = tmp_path / "by-path.safetensors", tmp_path / "by-name"
    assert sha256(by_path) == sha256(by_name) == sha256(published / STUDENT)


@pytest.fixture
def s3_server() -> Iterator[str]:
    """A server of the S3 protocol on loopback, with one bucket; its address."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=address,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="moonshine")
        yield address
    finally:
        server.stop()


@pytest.mark.slow
def test_the_clone_story_with_s3(s3_server: str, by_snakemake: Path, tmp_path: Path) -> None:
    project = copy_finished(by_snakemake, tmp_path / "project")
    run("dvc", "remote", "add", "--default", "storage", "s3://moonshine/results", cwd=project)
    run("dvc", "remote", "modify", "storage", "endpointurl", s3_server, cwd=project)
    run("dvc", "push", cwd=project, **S3)
    commit_all(project, "Results")
    fresh = clone(project, tmp_path / "clone")
    assert not (fresh / STUDENT).exists()
    run("dvc", "pull", cwd=fresh, **S3)
    assert sha256(fresh / STUDENT) == sha256(project / STUDENT)
    run_moonshine("sync", cwd=fresh)
    assert_nothing_to_do(fresh)


@pytest.mark.slow
def test_the_numbers_of_a_revision_are_measured_again_from_its_models(published: Path, tmp_path: Path) -> None:
    """What docs/review.md tells: fetch the models behind a table and evaluate them to the same numbers."""
    project = clone(published, tmp_path / "clone")
    metrics = project / "results/toy/metrics/distil/at/student.json"
    before = json.loads(metrics.read_text())
    run("dvc", "pull", cwd=project)
    metrics.unlink()
    run_moonshine("evaluate", "distil/at/student", cwd=project)
    assert json.loads(metrics.read_text()) == before
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("link", ["copy", "hardlink", "symlink"])
def test_verify_finds_a_damaged_file_of_the_cache_and_says_how_to_replace_it(
    link: str, published: Path, tmp_path: Path
) -> None:
    """DVC checks a protected file of its cache out unread, and calls what it then has in the workspace clean."""
    project = clone(published, tmp_path / "clone")
    run("dvc", "config", "--local", "cache.type", link, cwd=project)
    run("dvc", "pull", cwd=project)
    damage(project / ".dvc/cache/files/md5" / locked_md5(project, STUDENT))
    (project / STUDENT).unlink()
    run("dvc", "checkout", cwd=project)
    assert planned_by_dvc(project) == set(), "DVC trusts it"
    result = run_moonshine("verify", cwd=project, check=False)
    assert result.returncode == 3
    assert result.stderr.startswith(f"error: {STUDENT}: its md5 is not that of distil@toy-at-student-0 in dvc.lock; ")
    repair = result.stderr.partition("repair: ")[2].partition(", or dvc repro")[0]
    run("bash", "-c", repair, cwd=project)
    run_moonshine("verify", cwd=project)
    run_moonshine("sync", cwd=project)
    assert_nothing_to_do(project)


def damage(cached: Path) -> None:
    """Change a byte, and leave the file protected as DVC trusts it."""
    cached.chmod(0o644)
    cached.write_bytes(cached.read_bytes()[:-1] + b"!")
    cached.chmod(0o444)


@pytest.mark.slow
def test_a_switch_of_branches_brings_its_artefacts_and_plans_along(published: Path, tmp_path: Path) -> None:
    """With the hooks of `make hooks`."""
    project = copy_finished(published, tmp_path / "project")
    run("make", "hooks", cwd=project)
    run("git", "checkout", "--quiet", "-b", "other", cwd=project)
    page = project / "results/toy/README.md"
    here = page.read_text()
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("A teacher and its student.", "Another caption."))
    run("snakemake", "--cores", "1", cwd=project)
    commit_all(project, "Another caption")
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()
    for branch, text in (("-", here), ("other", page.read_text())):
        run("git", "checkout", "--quiet", branch, cwd=project)
        assert page.read_text() == text
        assert planned_by_dvc(project) == planned_by_snakemake(project) == set()


def make_branch_with_another_title(name: str, project: Path) -> None:
    """Its maps and its report are run again."""
    run("git", "checkout", "--quiet", "-b", name, cwd=project)
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("distil/at/student: Student", "distil/at/student: Pupil"))
    run("snakemake", "--cores", "1", cwd=project)
    commit_all(project, "Pupil")


@pytest.fixture(scope="module")
def two_branches(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One side has run evaluations by other code, `other` the maps with other titles, and both the report."""
    project = copy_finished(published, tmp_path_factory.mktemp("branches") / "project")
    make_branch_with_another_title("other", project)
    run("git", "checkout", "--quiet", "-", cwd=project)
    run("dvc", "checkout", "--quiet", cwd=project)
    run_moonshine("sync", cwd=project)
    for module in ("moonshine/costs/counts.py", "moonshine/report/tables.py"):
        comment(module)(project)
    run("snakemake", "--cores", "1", cwd=project)
    commit_all(project, "Other code")
    return project


@pytest.mark.slow
def test_branches_are_merged_stage_by_stage(two_branches: Path, tmp_path: Path) -> None:
    project = copy_finished(two_branches, tmp_path / "project")
    run("make", "hooks", cwd=project)
    said = run("git", *IDENTITY, "merge", "--quiet", "--no-edit", "other", cwd=project).stderr
    assert f"dvc.lock: both sides ran {REPORT}; it must be run again" in said
    assert planned_by_dvc(project) == planned_by_snakemake(project) == {REPORT}
    run("snakemake", "--cores", "1", cwd=project)
    assert "| Pupil" in (project / "results/toy/README.md").read_text()
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()


@pytest.mark.slow
@pytest.mark.parametrize("way", [("-s", "resolve", "other"), ("other", "third")], ids=["resolve", "octopus"])
def test_what_a_merge_without_driver_mixed_is_run_again(
    way: tuple[str, ...], two_branches: Path, tmp_path: Path
) -> None:
    project = copy_finished(two_branches, tmp_path / "project")
    run("git", "checkout", "--quiet", "-b", "third", "HEAD~", cwd=project)
    (project / "notes.md").write_text("Of a third side.\n")
    commit_all(project, "Notes")
    run("git", "checkout", "--quiet", "-", cwd=project)
    run("make", "hooks", cwd=project)
    said = run("git", *IDENTITY, "merge", "--quiet", "--no-edit", *way, cwd=project).stderr
    assert f"dvc.lock: {REPORT} was mixed from what several sides ran; it must be run again" in said
    assert planned_by_dvc(project) == planned_by_snakemake(project) == {REPORT}


@pytest.mark.slow
def test_no_patch_mixes_what_two_sides_ran(two_branches: Path, tmp_path: Path) -> None:
    project = copy_finished(two_branches, tmp_path / "project")
    run("make", "hooks", cwd=project)
    here = run("git", "rev-parse", "HEAD", cwd=project).stdout
    patch = tmp_path / "patch"
    patch.write_text(run("git", "format-patch", "--stdout", "HEAD..other", cwd=project).stdout)
    for command in (("am", str(patch)), ("rebase", "--apply", "other")):
        refused = run("git", *IDENTITY, *command, cwd=project, check=False)
        assert refused.returncode != 0
        assert "error: dvc.lock: patched on top of other runs" in refused.stderr
        run("git", command[0], "--abort", cwd=project)
        assert run("git", "rev-parse", "HEAD", cwd=project).stdout == here
    run("git", "checkout", "--quiet", "-b", "fresh", "HEAD~", cwd=project)
    run("git", *IDENTITY, "am", str(patch), cwd=project)
    run("dvc", "checkout", "--quiet", cwd=project)
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()
    run("git", "checkout", "--quiet", "-", cwd=project)
    run("git", *IDENTITY, "am", "--exclude=dvc.lock", str(patch), cwd=project)
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == {MAPS, REPORT}


@pytest.mark.slow
@pytest.mark.parametrize("way", [(), ("-X", "theirs")])
def test_without_the_hooks_one_side_is_taken_whole(way: tuple[str, ...], two_branches: Path, tmp_path: Path) -> None:
    project = copy_finished(two_branches, tmp_path / "project")
    merged = run("git", *IDENTITY, "merge", "--no-edit", *way, "other", cwd=project, check=False)
    assert (merged.returncode, "Merge conflict in dvc.lock" in merged.stdout) == ((0, False) if way else (1, True))
    sides = {side: run("git", "show", f"{side}:dvc.lock", cwd=project).stdout for side in ("ORIG_HEAD", "other")}
    assert (project / "dvc.lock").read_text() == sides["other" if way else "ORIG_HEAD"]
    run_moonshine("sync", cwd=project)
    assert (
        planned_by_dvc(project)
        == planned_by_snakemake(project)
        == ({EVALUATE_TRAIN, EVALUATE_DISTIL, COMPARE, REPORT} if way else {MAPS, REPORT})
    )


@pytest.mark.slow
def test_a_rebase_comes_to_its_end_and_brings_its_plans_along(published: Path, tmp_path: Path) -> None:
    """git takes files that were touched in its midst for edited ones."""
    project = copy_finished(published, tmp_path / "project")
    run("make", "hooks", cwd=project)
    make_branch_with_another_title("mine", project)
    run("git", "checkout", "--quiet", "-b", "other", "HEAD~", cwd=project)
    comment("moonshine/costs/counts.py")(project)
    run("snakemake", "--cores", "1", cwd=project)
    commit_all(project, "Other code")
    run("git", "checkout", "--quiet", "mine", cwd=project)
    page = project / "results/toy/README.md"
    run("git", *IDENTITY, "rebase", "other", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()
    assert "| Pupil" in page.read_text()
    run("git", "checkout", "--quiet", "other", cwd=project)
    assert "| Pupil" not in page.read_text()
    run("git", "rebase", "mine", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()
    assert "| Pupil" in page.read_text()


@pytest.mark.slow
def test_a_rebase_onto_fewer_seeds_leaves_alone_what_git_tracks(published: Path, tmp_path: Path) -> None:
    project = copy_finished(published, tmp_path / "project")
    curve = "results/toy/curves/train/teacher/seed7.csv"
    (project / curve).write_bytes((project / curve).with_name("seed0.csv").read_bytes())  # of a seed that there was
    commit_all(project, "Another seed")
    run("git", "branch", "fewer", cwd=project)
    (project / "notes.md").write_text("Mine.\n")
    commit_all(project, "Mine")
    run("make", "hooks", cwd=project)
    run("git", "checkout", "--quiet", "-b", "other", "fewer", cwd=project)
    (project / "theirs.md").write_text("Of others.\n")
    commit_all(project, "Theirs")
    untracked = project / "results/toy/curves/train/teacher/seed8.csv"
    untracked.write_bytes((project / curve).read_bytes())
    for command in (("checkout", "--quiet", "-"), ("rebase", "other"), ("merge", "--quiet", "other")):
        run("git", *IDENTITY, *command, cwd=project)
        assert run("git", "status", "--porcelain", cwd=project).stdout == ""
    assert f"`git rm {curve}`" in run_moonshine("sync", cwd=project).stderr
    assert not untracked.exists()
    assert planned_by_dvc(project) == planned_by_snakemake(project) == {REPORT}
    run("git", "rm", "--quiet", curve, cwd=project)
    assert "git rm" not in run_moonshine("sync", cwd=project).stderr
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()


def test_a_clone_of_git_for_windows_has_the_same_bytes(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project", toy_params())
    windows = tmp_path / "windows"
    run("git", "clone", "--quiet", "-c", "core.autocrlf=true", str(project), str(windows), cwd=tmp_path)
    assert files_below(windows / "moonshine", ".py") == files_below(project / "moonshine", ".py")
    assert b"\r" not in (windows / "containers/run").read_bytes()
    assert run("git", "status", "--porcelain", cwd=windows).stdout == ""


@pytest.mark.slow
def test_a_copy_without_fractions_of_seconds_loses_nothing(by_snakemake: Path, tmp_path: Path) -> None:
    """As tar and rsync make it."""
    project = copy_finished(by_snakemake, tmp_path / "project")
    before = files_below(project, ".safetensors", ".json", ".csv", ".arrow")
    for path in project.rglob("*"):
        if not path.is_symlink() and ".git" not in path.parts:
            os.utime(path, (int(path.stat().st_mtime),) * 2)
    assert "left alone" not in run_moonshine("record", cwd=project).stderr
    run_moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()
    after = files_below(project, ".safetensors", ".json", ".csv", ".arrow")
    assert {path: digest for path, digest in before.items() if not path.startswith(".")}.items() <= after.items()
    (project / "dvc.lock").unlink()
    run_moonshine("record", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == set()


BASE = {"same": 1, "mine": 1, "other": 1, "equal": 1, "both": 1, "dropped": 1, "dropped and run": 1}
OURS = {"same": 1, "mine": 2, "other": 1, "equal": 2, "both": 2, "dropped and run": 2, "new": 2, "both new": 2}
THEIRS = {"new there": 3, "same": 1, "mine": 1, "other": 3, "equal": 2, "both": 3, "dropped": 1, "both new": 3}


def test_what_both_sides_ran_is_run_again(tmp_path: Path) -> None:
    for name, stages in (("base", BASE), ("ours", OURS), ("theirs", THEIRS)):
        content = {"schema": "2.0", "stages": {stage: {"cmd": str(run)} for stage, run in stages.items()}}
        (tmp_path / name).write_text(yaml.safe_dump(content, sort_keys=False))
    said = run_moonshine("merge-lock", "base", "ours", "theirs", cwd=tmp_path).stderr
    merged = yaml.safe_load((tmp_path / "ours").read_text())["stages"]
    expected = {"same": 1, "mine": 2, "other": 3, "equal": 2, "new": 2, "new there": 3}
    assert [(stage, int(entry["cmd"])) for stage, entry in merged.items()] == list(expected.items())
    left_out = [line.removeprefix("dvc.lock: both sides ran ").split(";")[0] for line in said.splitlines()]
    assert left_out == ["both", "dropped and run", "both new"]


def test_two_sides_that_both_added_a_lock_keep_what_they_agree_on(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("")
    (tmp_path / "ours").write_text("schema: '2.0'\nstages: {a: {cmd: x}, b: {cmd: x}}\n")
    (tmp_path / "theirs").write_text("schema: '2.0'\nstages: {b: {cmd: x}, a: {cmd: y}, c: {cmd: y}}\n")
    run_moonshine("merge-lock", "base", "ours", "theirs", cwd=tmp_path)
    assert yaml.safe_load((tmp_path / "ours").read_text())["stages"] == {"b": {"cmd": "x"}, "c": {"cmd": "y"}}


@pytest.mark.parametrize("damage", ["stages: [", "stages: 3", "- 1", "\x00", "<<<<<<< HEAD\n"])
def test_what_is_no_lock_is_not_merged(damage: str, tmp_path: Path) -> None:
    for name in ("base", "ours", "theirs"):
        (tmp_path / name).write_text("schema: '2.0'\nstages: {}\n")
    (tmp_path / "theirs").write_text(damage)
    result = run_moonshine("merge-lock", "base", "ours", "theirs", cwd=tmp_path, check=False)
    assert result.returncode == 3
    assert result.stderr.startswith("error: theirs: not a dvc.lock (")
    assert (tmp_path / "ours").read_text() == "schema: '2.0'\nstages: {}\n"


def locked_md5(project: Path, path: str) -> Path:
    """The md5 of an output in dvc.lock, as its path in the cache."""
    stages = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    md5 = next(out["md5"] for stage in stages.values() for out in stage["outs"] if out["path"] == path)
    return Path(md5[:2], md5[2:])
