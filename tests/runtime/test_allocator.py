"""Freed tensors' memory is used again without asking the system for pages, and lies in huge ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.separate_project import ROOT, environment
from moonshine.runtime.startup import TUNABLES, VARIABLE

TRANSPARENT_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

PROGRAM = """
import json, resource, torch

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(25_000_000)  # 100 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

new_pages()
again = new_pages()
tensor = torch.zeros(25_000_000)
heap = open("/proc/self/smaps").read().split("[heap]")[-1].split("VmFlags")[0]
sizes = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Vm"))
huge = [line.split()[1] for line in heap.splitlines() if line.startswith("AnonHugePages")]
print(json.dumps({"pages": again, "huge": int(huge[0]), "addresses": int(sizes["VmPeak"].split()[0])}))
"""


def measured(**extra: str) -> dict[str, int]:
    """Pages that a process with tensors gets again and again, KiB of its heap in huge pages, KiB of its addresses."""
    variables = {name: value for name, value in environment().items() if name != VARIABLE} | extra
    command = [sys.executable, "-c", PROGRAM]
    return json.loads(subprocess.run(command, env=variables, capture_output=True, check=True).stdout)


def test_memory_of_freed_tensors_is_used_again() -> None:
    plain, ours = measured(), measured(**{VARIABLE: TUNABLES})
    assert plain["pages"] > 100
    assert ours["pages"] < plain["pages"] / 10
    assert ours["addresses"] < plain["addresses"] + 1_000_000  # what is in use has some gaps, and nothing is reserved
    if "[never]" not in TRANSPARENT_HUGE_PAGES.read_text():
        assert ours["huge"] > 80_000


NOTE = """
import json, os, sys
print(json.dumps([os.environ.get("GLIBC_TUNABLES"), sys.orig_argv[1:]]), file=open(os.environ["STARTS"], "a"))
"""


@pytest.mark.parametrize(
    ("given", "command", "seen"),
    [
        ({}, "fetch", [None, TUNABLES]),
        ({VARIABLE: "glibc.malloc.arena_max=2"}, "fetch", ["glibc.malloc.arena_max=2"]),
        ({VARIABLE: ""}, "fetch", [""]),
        ({}, "describe", [None]),
    ],
    ids=["unset", "a user's own", "empty", "a short command"],
)
def test_a_command_that_works_for_long_starts_once_more_with_it(
    given: dict[str, str], command: str, seen: list[str | None], tmp_path: Path
) -> None:
    """With the same arguments, and from there on as if nothing had been."""
    (tmp_path / "sitecustomize.py").write_text(NOTE)
    starts = tmp_path / "starts"
    variables = environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}", STARTS=str(starts))
    variables = {name: value for name, value in variables.items() if name != VARIABLE} | given
    arguments = ["-W", "error::SyntaxWarning", "-m", "moonshine", command, "a b"]
    result = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "error: params.yaml: no such file; run this from the project's root\n"
    assert list(map(json.loads, starts.read_text().splitlines())) == [[value, arguments] for value in seen]


def test_everything_that_starts_stages_hands_it_on() -> None:
    for starter in ("containers/run", "containers/Dockerfile", "containers/moonshine.def"):
        assert TUNABLES in (ROOT / starter).read_text()
    rules = (ROOT / "workflow/rules/common.smk").read_text()
    assert "os.environ.setdefault(startup.VARIABLE, startup.TUNABLES)" in rules


def test_a_program_that_came_by_standard_input_is_not_started_again(tmp_path: Path) -> None:
    """It could not be read a second time, and the command would do nothing."""
    variables = {name: value for name, value in environment().items() if name != VARIABLE}
    program = "import sys; sys.argv[1:] = ['report']; from moonshine.cli import run; run()"
    command = [sys.executable]
    result = subprocess.run(command, input=program, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert result.returncode == 2
    assert "params.yaml: no such file" in result.stderr
