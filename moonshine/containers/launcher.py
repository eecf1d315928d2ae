"""Run a command in the project's image with Docker or Apptainer; `containers/run` calls this for stages under DVC.

Snakemake launches Apptainer itself and takes from here which folders to mount. The only package needed here is PyYAML,
which DVC brings: the machine's Python need not have the project's packages.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from moonshine.errors import MachineError, MoonshineError, ParamsError
from moonshine.project.artefacts import GPU_CLAIMS, RUNS
from moonshine.runtime import nvidia

IMAGE, SIF = "moonshine", Path("containers/moonshine.sif")
PASSED_ON = ("CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
"""Variables passed on to Docker; Apptainer passes on the whole environment."""
NOT_THE_HOSTS = ("--env", "PYTHONPATH=,PYTHONHOME=,PYTHONNOUSERSITE=1")
"""For Apptainer: the image's packages and no others. Snakemake's profiles set the same."""


def main(command: Sequence[str]) -> NoReturn:
    """Replace this process with Docker or Apptainer, or print in one line why not and exit (codes: docs/errors.md)."""
    wanted = os.environ.get("MOONSHINE_CONTAINER", "")
    try:
        if wanted not in LAUNCHERS:
            raise ParamsError(f'MOONSHINE_CONTAINER: must be host, docker or apptainer, found "{wanted}"')
        words = LAUNCHERS[wanted](command)
    except MoonshineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    os.execvp(words[0], words)  # noqa: S606 (a list of words)


def bound_folders(params: Mapping[str, Any]) -> list[str]:
    """Folders outside the project that its stages read or write, from the content of params.yaml.

    They are `machine.raw_data`, `machine.folders`, `machine.downloads` if it exists, and the target of `runs` if it is
    a link. ParamsError (exit code 2) for `~`, which is another folder in a container, and for paths that would mount
    something else.
    """
    machine = params.get("machine") or {}
    keyed = [(f"raw_data.{source}", folder) for source, folder in (machine.get("raw_data") or {}).items()]
    keyed += [("folders", folder) for folder in machine.get("folders") or []]
    keyed += [("downloads", machine.get("downloads") or "downloads")]
    for key, folder in keyed:
        if folder.startswith("~"):
            raise ParamsError(f"machine.{key}: {folder} would be another folder in a container; write the whole path")
    named = [folder for key, folder in keyed if key != "downloads" or Path(folder).is_dir()]
    paths = [Path(folder).resolve() for folder in named] + ([RUNS.resolve()] if RUNS.is_symlink() else [])
    for path in paths:
        _require_mountable(str(path))
    return [str(path) for path in dict.fromkeys(paths)]


def _require_mountable(path: str) -> None:
    """Mounts are written FROM:TO, separated by commas: a folder /a:/b in params.yaml would mount /a at /b."""
    if re.search(r"[:,\x00-\x1f\x7f]", path):
        raise ParamsError(f"{path!r}: cannot be mounted into a container: no colons, commas or control characters")


def _docker(command: Sequence[str]) -> list[str]:
    _require("docker")
    if not _answers("docker", "version"):
        raise MachineError(
            "docker: its daemon does not answer; start it, or set MOONSHINE_CONTAINER to apptainer or host"
        )
    if not _answers("docker", "image", "inspect", IMAGE):
        raise MachineError(f"docker: no image {IMAGE}; build it with `make image`")
    here = os.getcwd()  # noqa: PTH109 (a string)
    # the caller's user, with a name, which torch.compile needs; room for DataLoader workers to share tensors
    words = ["docker", "run", "--rm", "--init", "--user", f"{os.getuid()}:{os.getgid()}", "--shm-size", "8g"]
    words += ["--env", "USER=moonshine", "--env", "HOME=/tmp", "--workdir", here]
    if nvidia.CONTROL.exists():
        GPU_CLAIMS.mkdir(mode=0o1777, exist_ok=True)
        words += ["--gpus", "all", "--volume", f"{GPU_CLAIMS}:{GPU_CLAIMS}"]
    _require_mountable(here)
    for folder in (here, *_bound()):
        words += ["--volume", f"{folder}:{folder}"]
    for name in PASSED_ON:
        words += ["--env", name] if name in os.environ else []
    return [*words, "--entrypoint", command[0], IMAGE, *command[1:]]


def _apptainer(command: Sequence[str]) -> list[str]:
    program = "apptainer" if shutil.which("apptainer") else "singularity"
    _require(program)
    if not SIF.exists():
        raise MachineError(f"{SIF}: missing; build it with `make sif`")
    if not _answers(program, "inspect", str(SIF)):
        raise MachineError(f"{SIF}: {program} cannot read it; rebuild it with `make sif`")
    here = os.getcwd()  # noqa: PTH109
    words = [program, "--silent", "exec", "--nv", "--home", here, *NOT_THE_HOSTS]
    for folder in _bound():
        words += ["--bind", folder]
    return [*words, str(SIF), *command]


LAUNCHERS: dict[str, Callable[[Sequence[str]], list[str]]] = {"docker": _docker, "apptainer": _apptainer}


def _bound() -> list[str]:
    try:
        import yaml
    except ImportError:
        raise MachineError("python3: has no PyYAML; activate the environment that DVC is installed in") from None
    try:
        params = yaml.safe_load(Path("params.yaml").read_text())
        return bound_folders(params)
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError, RecursionError):
        return []  # the command itself reports what is wrong with it


def _require(program: str) -> None:
    if not shutil.which(program):
        raise MachineError(
            f"{program}: not installed here; install it, or set MOONSHINE_CONTAINER to another one or to host"
        )


def _answers(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


if __name__ == "__main__":
    main(sys.argv[1:])
