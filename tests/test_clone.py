"""A clone gets everything from a remote and has nothing left to do; published models can be had by name."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.exceptions import EndpointConnectionError

from moonshine.files import sha256
from support import IDENTITY, commit_all, copy_finished, environment, moonshine, run
from test_agreement import AFTER_DISTIL, planned_by_dvc, planned_by_snakemake

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
    moonshine("sync", cwd=project)
    assert_nothing_to_do(project)
    # and a change is noticed by both, although nothing here was ever run
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("beta: 30.0", "beta: 20.0"))
    assert planned_by_dvc(project) == planned_by_snakemake(project) == AFTER_DISTIL
    moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == AFTER_DISTIL


def test_make_demo_in_a_clone_prints_the_tables_at_once(published: Path, tmp_path: Path) -> None:
    project = clone(published, tmp_path / "clone")
    (project / ".venv").symlink_to(sys.prefix)
    run("dvc", "pull", cwd=project)
    shown = run("make", "--old-file", ".venv/installed", "demo", "CORES=1", cwd=project)
    assert "| Student" in shown.stdout
    assert "Nothing to be done" in shown.stderr
    assert "Running stage" not in shown.stdout + shown.stderr
    assert "1 of" not in shown.stderr, "no job ran"


def test_half_a_pull_plans_what_is_missing(published: Path, tmp_path: Path) -> None:
    project = clone(published, tmp_path / "clone")
    run("dvc", "pull", "prepare@digits", "train@toy-teacher-0", cwd=project)
    moonshine("sync", cwd=project)
    assert planned_by_dvc(project) == planned_by_snakemake(project) == AFTER_DISTIL


def test_a_published_model_is_had_by_path_and_by_name(published: Path, tmp_path: Path) -> None:
    run("dvc", "get", str(published), STUDENT, "--out", "by-path.safetensors", cwd=tmp_path)
    run("dvc", "artifacts", "get", str(published), "toy-student", "--out", "by-name", cwd=tmp_path)
    by_path, by_name = tmp_path / "by-path.safetensors", tmp_path / "by-name"
    assert sha256(by_path) == sha256(by_name) == sha256(published / STUDENT)


@pytest.fixture
def s3_server() -> Iterator[str]:
    """A server of the S3 protocol on loopback, with one bucket; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
        env=environment(**S3),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=address,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106
            region_name="us-east-1",
        )
        while True:
            assert server.poll() is None
            try:
                client.create_bucket(Bucket="moonshine")
                break
            except EndpointConnectionError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


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
    moonshine("sync", cwd=fresh)
    assert_nothing_to_do(fresh)


@pytest.mark.slow
def test_the_numbers_of_a_revision_are_measured_again_from_its_models(published: Path, tmp_path: Path) -> None:
    """What docs/review.md tells: fetch the models behind a table and evaluate them to the same numbers."""
    project = clone(published, tmp_path / "clone")
    metrics = project / "results/toy/metrics/distil/at/student.json"
    before = json.loads(metrics.read_text())
    run("dvc", "pull", cwd=project)
    metrics.unlink()
    moonshine("evaluate", "distil/at/student", cwd=project)
    assert json.loads(metrics.read_text()) == before
    assert run("git", "status", "--porcelain", cwd=project).stdout == ""


@pytest.mark.slow
def test_a_damaged_cache_file_is_noticed_and_never_used_again(published: Path, tmp_path: Path) -> None:
    """DVC checks a protected file of its cache out unread, and calls what it then has in the workspace clean."""
    project = clone(published, tmp_path / "clone")
    run("dvc", "pull", cwd=project)
    cached = project / ".dvc/cache/files/md5" / locked_md5(project, STUDENT)
    damage(cached)
    (project / STUDENT).unlink()
    run("dvc", "checkout", cwd=project)
    assert planned_by_dvc(project) == set(), "DVC trusts it"
    assert "damaged, removed from DVC's cache" in moonshine("sync", cwd=project).stderr
    assert planned_by_dvc(project) == planned_by_snakemake(project) == AFTER_DISTIL
    (project / STUDENT).unlink()
    run("dvc", "pull", cwd=project)
    moonshine("sync", cwd=project)
    assert_nothing_to_do(project)


@pytest.mark.parametrize("link", ["symlink", pytest.param("hardlink", marks=pytest.mark.slow)])
def test_damage_to_a_linked_output_is_damage_to_the_cache(link: str, published: Path, tmp_path: Path) -> None:
    project, cached = linked_clone(link, published, tmp_path / "clone")
    damage(cached)
    assert f"{cached.relative_to(project)}: damaged, removed from DVC's cache" in moonshine("sync", cwd=project).stderr
    assert not cached.exists()
    assert planned_by_dvc(project) == planned_by_snakemake(project) == AFTER_DISTIL
    run("dvc", "pull", "--force", STUDENT, cwd=project)
    moonshine("sync", cwd=project)
    assert_nothing_to_do(project)


def test_a_damaged_file_of_the_cache_that_is_linked_again_is_noticed(published: Path, tmp_path: Path) -> None:
    """It was hashed while dvc.lock did not name it, and is in place again as it was then: only the hash tells."""
    project, cached = linked_clone("symlink", published, tmp_path / "clone")
    lock = project / "dvc.lock"
    damage(cached)
    lock.rename(tmp_path / "dvc.lock")
    moonshine("sync", cwd=project)
    (tmp_path / "dvc.lock").rename(lock)
    (project / STUDENT).unlink()
    run("dvc", "checkout", STUDENT, cwd=project)
    assert planned_by_dvc(project) == set(), "DVC trusts it"
    assert "damaged, removed from DVC's cache" in moonshine("sync", cwd=project).stderr
    assert planned_by_dvc(project) == planned_by_snakemake(project) == AFTER_DISTIL


def linked_clone(link: str, published: Path, folder: Path) -> tuple[Path, Path]:
    """A clone whose outputs are links to its cache, and the student's file there."""
    project = clone(published, folder)
    run("dvc", "config", "--local", "cache.type", link, cwd=project)
    run("dvc", "pull", cwd=project)
    moonshine("sync", cwd=project)
    return project, project / ".dvc/cache/files/md5" / locked_md5(project, STUDENT)


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


def locked_md5(project: Path, path: str) -> Path:
    """The md5 of an output in dvc.lock, as its path in the cache."""
    stages = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    md5 = next(out["md5"] for stage in stages.values() for out in stage["outs"] if out["path"] == path)
    return Path(md5[:2], md5[2:])
