"""`containers/run`: one environment variable says where a stage runs, and one line what is missing there.

Here the engines are small programs that answer as Docker and Apptainer do; test_images.py has the real ones.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_project import ROOT, environment, write_params
from moonshine.containers import launcher
from moonshine.errors import ParamsError
from moonshine.runtime import nvidia
from tests.support.project import run, run_moonshine, toy_params

LOCK = "requirements/runtime.lock"
DOCKER = """#!/bin/sh
case "$1" in
    version) exit {version} ;;
    image) exit {image} ;;
    run) printf '%s\\n' "$@" ;;
esac
"""
APPTAINER = """#!/bin/sh
case "$1" in
    inspect) ;;
    *) printf '%s\\n' "$@" ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The launcher and what it reads, in a folder of its own; `engines` comes first on PATH."""
    project = tmp_path / "project"
    for name in ("containers", "requirements", "moonshine"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "*.sif"))
    write_params(project, toy_params())
    (tmp_path / "engines").mkdir()
    return project


def install(project: Path, name: str, text: str, **values: Any) -> None:
    program = project.parent / "engines" / name
    program.write_text(text.format(**{"version": 0, "image": 0, **values}))
    program.chmod(0o755)


def launch(project: Path, engine: str, *command: str, **extra: str) -> tuple[int, str, str]:
    """(exit code, output, messages); only the engines of this test can be found."""
    tools = project.parent / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("bash", "sh", "dirname", "env", "echo"):
        shutil.copy(shutil.which(name) or name, tools)
    (tools / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tools / "python3").chmod(0o755)
    path = f"{project.parent / 'engines'}:{tools}"
    script = f'PATH="{path}" exec "{project}/containers/run" "$@"'
    result = run("bash", "-c", script, "-", *command, cwd=project, check=False, MOONSHINE_CONTAINER=engine, **extra)
    return result.returncode, result.stdout, result.stderr


def test_on_the_host_a_command_just_runs(project: Path) -> None:
    assert launch(project, "host", "echo", "a  b")[:2] == (0, "a  b\n")


@pytest.mark.parametrize(
    ("engine", "installed", "message"),
    [
        ("podman", {}, 'MOONSHINE_CONTAINER: must be host, docker or apptainer, found "podman"'),
        ("docker", {}, "docker: not installed here"),
        ("docker", {"docker": {"version": 1}}, "docker: its daemon does not answer"),
        ("docker", {"docker": {"image": 1}}, "docker: no image moonshine; build it with `make image`"),
        ("apptainer", {}, "singularity: not installed here"),
        ("apptainer", {"apptainer": {}}, "containers/moonshine.sif: missing; build it with `make sif`"),
    ],
)
def test_what_is_missing_is_one_line(
    engine: str, installed: dict[str, dict[str, Any]], message: str, project: Path
) -> None:
    for name, values in installed.items():
        if name == "sif":
            (project / "containers/moonshine.sif").touch()
        else:
            install(project, name, DOCKER if name == "docker" else APPTAINER, **values)
    code, output, said = launch(project, engine, "python", "--version")
    assert code == (2 if engine == "podman" else 5)
    assert output == ""
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


def test_docker_gets_the_project_the_users_id_and_the_data_disks(project: Path, tmp_path: Path) -> None:
    params = toy_params()
    disk, raw, downloads = (tmp_path / name for name in ("disk", "raw", "downloads"))
    downloads.mkdir()
    params["machine"] = {"folders": [str(disk)], "raw_data": {"imagenet": str(raw)}, "downloads": str(downloads)}
    write_params(project, params)
    (tmp_path / "runs").mkdir()
    (project / "runs").symlink_to(tmp_path / "runs")
    install(project, "docker", DOCKER)
    code, output, _ = launch(project, "docker", "python", "-m", "moonshine", "prepare", CUDA_VISIBLE_DEVICES="3")
    words = output.splitlines()
    assert code == 0
    volumes = [words[i + 1] for i, word in enumerate(words) if word == "--volume"]
    for folder in (project, disk, raw, downloads, tmp_path / "runs"):
        assert f"{folder}:{folder}" in volumes
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert words[words.index("--workdir") + 1] == str(project)
    assert "CUDA_VISIBLE_DEVICES" in words
    assert words[-6:] == ["--entrypoint", "python", "moonshine", "-m", "moonshine", "prepare"]
    assert ("--gpus" in words) == nvidia.CONTROL.exists()


@pytest.mark.parametrize(
    ("key", "machine"),
    [
        ("raw_data.imagenet", {"raw_data": {"imagenet": "~/raw"}}),
        ("folders", {"folders": ["~/raw"]}),
        ("downloads", {"downloads": "~/raw"}),
    ],
)
def test_a_home_which_is_another_in_a_container_is_refused(key: str, machine: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=rf"^machine\.{key}: ~/raw would be another folder in a container; write the"):
        launcher.bound_folders({"machine": machine})


@pytest.mark.parametrize("folder", ["/disk:/usr/lib/python3", "/disk,/etc", "/disk\n/etc"])
def test_a_folder_that_would_mount_another_is_refused(folder: str) -> None:
    for machine in ({"folders": [folder]}, {"raw_data": {"imagenet": folder}}):
        with pytest.raises(ParamsError, match="cannot be mounted into a container: no colons, commas or control"):
            launcher.bound_folders({"machine": machine})


@pytest.mark.parametrize(
    "text",
    ["machine: {folders: 3}", "machine: [1]", 'machine: {folders: ["a\\0b"]}', "[" * 5000, "machine: {folders: [3]}"],
)
def test_the_launcher_leaves_wrong_params_to_the_command(text: str, project: Path) -> None:
    (project / "params.yaml").write_text(text)
    install(project, "docker", DOCKER)
    code, _, said = launch(project, "docker", "python", "-m", "moonshine", "check")
    assert (code, said) in (
        (0, ""),
        (2, "error: 'a\\x00b': cannot be mounted into a container: no colons, commas or cont"),
    )
    assert "Traceback" not in said


def test_docker_gets_the_gpus_where_there_are_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(launcher, "_require", lambda program: None)
    monkeypatch.setattr(launcher, "_answers", lambda *command: True)
    monkeypatch.setattr(launcher, "GPU_CLAIMS", tmp_path / "claims")
    monkeypatch.setattr(nvidia, "CONTROL", tmp_path)  # something that exists
    words = launcher.LAUNCHERS["docker"](["python"])
    assert words[words.index("--gpus") + 1] == "all"
    assert f"{tmp_path / 'claims'}:{tmp_path / 'claims'}" in words  # so that containers see each other's claims


def test_apptainer_gets_the_gpu_and_nothing_of_the_hosts_python(project: Path) -> None:
    install(project, "apptainer", APPTAINER)
    (project / "containers/moonshine.sif").touch()
    code, output, _ = launch(project, "apptainer", "python", "-m", "moonshine", "prepare")
    words = output.splitlines()
    assert code == 0
    assert words[1:5] == ["exec", "--nv", "--home", str(project)]
    assert list(launcher.NOT_THE_HOSTS) == words[5:7]
    assert words[-5:] == ["containers/moonshine.sif", "python", "-m", "moonshine", "prepare"]
    profile = (ROOT / "workflow/profiles/default/config.yaml").read_text()
    assert f'apptainer-args: "--nv {" ".join(launcher.NOT_THE_HOSTS)}"' in profile


def test_snakemake_says_that_the_image_is_missing(project: Path) -> None:
    shutil.copytree(ROOT / "workflow", project / "workflow")
    install(project, "apptainer", "#!/bin/sh\necho apptainer version 1.4.5\n")
    path = f"{project.parent / 'engines'}{os.pathsep}{environment()['PATH']}"
    result = run("snakemake", "--dry-run", "--use-singularity", cwd=project, check=False, PATH=path)
    assert result.returncode == 1
    assert "containers/moonshine.sif: missing; build it with `make sif`" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_a_stage_refuses_an_image_of_another_lock(tmp_path: Path) -> None:
    """Whoever launched it; an image is known by the lock beside its packages."""
    project, image = tmp_path / "project", tmp_path / "image"
    (project / "requirements").mkdir(parents=True)
    image.mkdir()
    write_params(project, toy_params())
    shutil.copy(ROOT / LOCK, project / LOCK)
    (image / "runtime.lock").write_text("torch==1.0\n")
    start = f"import sys; sys.prefix = {str(image)!r}; from moonshine.cli import main; sys.exit(main(sys.argv[1:]))"
    commands = (("check", "--keys"), ("prepare",))  # the check before DVC deletes an output of what comes after it
    for command in commands:
        result = run("python", "-c", start, *command, cwd=project, check=False)
        assert result.returncode == 5
        assert result.stderr.startswith(f"error: this image was built from another {LOCK}; rebuild it")
    assert not (project / "data").exists()
    shutil.copy(ROOT / LOCK, image / "runtime.lock")
    for command in commands:
        assert run("python", "-c", start, *command, cwd=project).returncode == 0
    assert run_moonshine("check", cwd=project).returncode == 0


def test_the_launcher_needs_no_package_but_pyyaml(project: Path) -> None:
    """The machine's own Python runs it, which has none of the project's packages."""
    program = "import sys; sys.path.insert(0, '.'); import moonshine.containers.launcher; print(*sorted(sys.modules))"
    modules = run(sys.executable, "-I", "-S", "-c", program, cwd=project).stdout.split()
    assert "moonshine.containers.launcher" in modules
