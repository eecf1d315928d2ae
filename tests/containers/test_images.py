"""The experiment inside the image, by Docker and by Apptainer, with the bytes that the host computes.

Needs a Docker engine with the image of `make image`, and Apptainer with containers/moonshine.sif of `make sif`; what
lacks one of them is skipped. `make test-containers` runs this.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.separate_project import ROOT
from moonshine.runtime.files import sha256
from tests.support.project import copy_project, run, toy_params

LOCK, SIF = ROOT / "requirements/runtime.lock", ROOT / "containers/moonshine.sif"


def answers(*command: str) -> bool:
    return bool(shutil.which(command[0])) and subprocess.run(command, capture_output=True).returncode == 0


HAS_APPTAINER = answers("apptainer", "--version") or answers("singularity", "--version")
pytestmark = pytest.mark.slow
docker = pytest.mark.skipif(not answers("docker", "image", "inspect", "moonshine"), reason="no Docker image moonshine")
BASE = "debian:bookworm-slim"
buildable = pytest.mark.skipif(
    not (answers("apptainer", "--version") and answers("docker", "image", "inspect", BASE)),
    reason=f"no Apptainer, or no Docker image {BASE}",
)
apptainer = pytest.mark.skipif(not (HAS_APPTAINER and SIF.exists()), reason=f"no Apptainer, or no {SIF.name}")


def project_in(folder: Path) -> Path:
    project = copy_project(folder / "project", toy_params())
    if SIF.exists():
        (project / "containers" / SIF.name).symlink_to(SIF)
    return project


def model_hashes(project: Path) -> dict[str, str]:
    return {str(path.relative_to(project)): sha256(path) for path in project.glob("models/**/*.safetensors")}


@pytest.fixture(scope="module")
def on_the_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = project_in(tmp_path_factory.mktemp("host"))
    run("dvc", "repro", cwd=project)
    assert len(model_hashes(project)) == 2
    return project


def without_hashes_of_records(lock: Path) -> str:
    """dvc.lock without what times and machines are in: the records of how a model was made."""
    return re.sub(
        r"(- path: models/\S*/records/\S*\n\s+hash: md5\n\s+md5: )\w+(\n\s+size: )\d+", r"\1\2", lock.read_text()
    )


@pytest.mark.parametrize("engine", [pytest.param("docker", marks=docker), pytest.param("apptainer", marks=apptainer)])
def test_dvc_runs_every_stage_in_the_image(engine: str, on_the_host: Path, tmp_path: Path) -> None:
    project = project_in(tmp_path)
    run("dvc", "repro", cwd=project, MOONSHINE_CONTAINER=engine)
    assert model_hashes(project) == model_hashes(on_the_host)
    assert without_hashes_of_records(project / "dvc.lock") == without_hashes_of_records(on_the_host / "dvc.lock")
    record = json.loads((project / "models/toy/records/train/teacher/seed0.json").read_text())
    assert record["image"] == f"lock-{sha256(LOCK)}"
    assert "up to date" in run("dvc", "status", cwd=project, MOONSHINE_CONTAINER="host").stdout
    owners = {path.stat().st_uid for path in project.rglob("*")}
    assert owners == {project.stat().st_uid}


@apptainer
def test_snakemake_runs_every_stage_in_the_image(on_the_host: Path, tmp_path: Path) -> None:
    """And neither ~/.local nor PYTHONPATH of the host is seen there."""
    project = project_in(tmp_path)
    home, packages = tmp_path / "home", tmp_path / "packages"
    for folder in (home / ".local/lib/python3.11/site-packages", packages):
        folder.mkdir(parents=True)
        (folder / "numpy.py").write_text("raise ImportError('the numpy of the host')\n")
    command = ("snakemake", "--cores", "2", "--use-singularity")
    # Snakemake itself is not to stumble over the trap: Apptainer hands APPTAINERENV_* on as if they were the host's
    run(*command, cwd=project, HOME=str(home), APPTAINERENV_PYTHONPATH=str(packages), PYTHONPATH=str(project))
    assert model_hashes(project) == model_hashes(on_the_host)
    record = json.loads((project / "models/toy/records/train/teacher/seed0.json").read_text())
    assert record["image"] == f"lock-{sha256(LOCK)}"
    assert "up to date" in run("dvc", "status", cwd=project).stdout


@buildable
def test_apptainer_builds_without_docker(tmp_path: Path) -> None:
    """All but the packages, which take ten minutes: a stub stands in for `install` and notes what it was given."""
    project = copy_project(tmp_path / "project", toy_params())
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    (project / "containers/install").write_text('ls >>/given; echo "$1 $PIP_INDEX_URL" >>/given\n')
    base, index = tmp_path / "base.tar", "https://index.invalid/simple?a=b&c=%40"
    run("docker", "save", "--output", str(base), BASE, cwd=project)
    surroundings = {"DOCKER_HOST": "unix:///nowhere", "BASE_ARCHIVE": str(base), "PIP_INDEX_URL": index}
    run("containers/build", "sif", cwd=project, **surroundings)

    sif = f"containers/{SIF.name}"
    script = "cat /given; echo $MOONSHINE_IMAGE; ls /opt"
    inside = run("apptainer", "exec", sif, "bash", "-c", script, cwd=project).stdout.split()
    files = ["LICENSE", "README.md", "certificates", "install", "moonshine", "pyproject.toml", "requirements"]
    files += ["runtime.lock"]
    assert inside == [*files, "packages", index, *files, "project", index, f"lock-{sha256(LOCK)}"]
    labels = json.loads(run("apptainer", "inspect", "--json", "--labels", sif, cwd=project).stdout)
    assert labels["data"]["attributes"]["labels"]["moonshine.runtime-lock"] == sha256(LOCK)


@docker
def test_the_docker_image_is_a_plain_users() -> None:
    def inside(*command: str) -> str:
        return run("docker", "run", "--rm", *command, cwd=ROOT).stdout

    assert "Replace the costly convolutions of a network with cheap ones" in inside("moonshine", "--help")
    script = "id -u; python -c 'import moonshine, torch; print(torch.version.cuda is not None)'; g++ -dumpversion"
    user, has_cuda, compiler = inside("--entrypoint", "bash", "moonshine", "-c", script).split()
    assert (user, has_cuda) == ("1000", "True")
    assert int(compiler.split(".")[0]) >= 12
    label = run(
        "docker", "image", "inspect", "--format", '{{index .Config.Labels "moonshine.runtime-lock"}}', "moonshine",
        cwd=ROOT,
    ).stdout  # fmt: skip
    assert label.strip() == sha256(LOCK)


@pytest.mark.parametrize("engine", [pytest.param("docker", marks=docker), pytest.param("apptainer", marks=apptainer)])
def test_an_image_of_another_lock_is_refused(engine: str, tmp_path: Path) -> None:
    project = project_in(tmp_path)
    with (project / "requirements/runtime.lock").open("a") as lock:
        lock.write("# changed\n")
    command = ("containers/run", "python", "-m", "moonshine", "prepare")
    result = run(*command, cwd=project, check=False, MOONSHINE_CONTAINER=engine)
    assert result.returncode == 5
    assert "built from another requirements/runtime.lock; rebuild it" in result.stderr
    assert result.stderr.count("\n") == 1


@apptainer
def test_under_snakemake_too(tmp_path: Path) -> None:
    project = project_in(tmp_path)
    with (project / "requirements/runtime.lock").open("a") as lock:
        lock.write("# changed\n")
    result = run("snakemake", "--cores", "1", "--use-singularity", cwd=project, check=False)
    assert result.returncode == 1
    assert "this image was built from another requirements/runtime.lock" in result.stdout + result.stderr
    assert not (project / "data/digits/manifest.json").exists()


@apptainer
def test_a_gpu_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    project = project_in(tmp_path)
    command = ("containers/run", "python", "-m", "moonshine", "train", "teacher", "--seed", "0")
    run("containers/run", "python", "-m", "moonshine", "prepare", cwd=project)
    refused = run(*command, cwd=project, check=False, MOONSHINE_CONTAINER="apptainer", CUDA_VISIBLE_DEVICES="GPU-none")
    assert refused.returncode == 5
    assert "CUDA_VISIBLE_DEVICES is GPU-none, but torch finds no GPU" in refused.stderr
