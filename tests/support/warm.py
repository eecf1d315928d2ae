"""Run programs in processes forked from one that has imported torch: real processes, without the seconds of imports.

Everything after the imports is as a user's command has it: a process of its own, with its own folder, environment,
arguments, output and exit code. What Python or a C library reads when it starts needs a process that starts.
"""

import atexit
import importlib
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "moonshine.cli",
        "moonshine.stages.prepare",
        "moonshine.sources.digits",
        "moonshine.stages.evaluate",
        "moonshine.stages.report",
        "moonshine.stages.distil",
        "moonshine.training.session",
        "moonshine.deployment.export",
        "dvc.cli",
        "dvc.repo.status",
        "snakemake.cli",
    ]
)


@atexit.register
def _end_what_a_failed_test_left() -> None:
    """Else multiprocessing, which has its turn after this, would wait for a stopped process for ever."""
    for process in multiprocessing.active_children():
        process.kill()


PROGRAMS = {"moonshine": "moonshine.cli", "dvc": "dvc.cli", "snakemake": "snakemake.cli"}
"""Program -> the module whose `main` it is."""


def run_warm(
    program: str, *arguments: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run one of PROGRAMS to its end; the code of moonshine is that of `folder` if it has its own."""
    with TemporaryDirectory() as outputs:
        files = [Path(outputs) / name for name in ("stdout", "stderr")]
        process = CONTEXT.Process(target=_child, args=(program, arguments, folder, environment, files))
        process.start()
        try:
            process.join()
        finally:
            process.kill()  # if a test's time is up; of one that has ended nothing is left to kill
        said = [file.read_text(errors="replace") if file.exists() else "" for file in files]
        assert process.exitcode is not None
    return subprocess.CompletedProcess((program, *arguments), process.exitcode, *said)


def _child(
    program: str, arguments: tuple[str, ...], folder: Path, environment: dict[str, str], outputs: list[Path]
) -> None:
    for descriptor, file in enumerate(outputs, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    own = folder / "moonshine"
    if own.is_dir() and not own.samefile(Path(__file__).parents[2] / "moonshine"):
        for name in [name for name in sys.modules if name.split(".")[0] == "moonshine"]:
            del sys.modules[name]
    sys.argv = [program, *arguments]
    module = importlib.import_module(PROGRAMS[program])
    if program == "moonshine":
        module.run()
    sys.exit(module.main())
