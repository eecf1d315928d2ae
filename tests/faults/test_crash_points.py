"""kill -9, a full disk and a failing disk at every system call that a save or a publication makes.

Each case is the command under strace with one fault injected, then the same command undisturbed: it has to end with
the bytes of a run that nothing ever disturbed.
"""

import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.experiment import TRAIN, Experiment, Injections, artefact_hashes
from tests.faults.forked import STRACE, command, traced

pytestmark = pytest.mark.skipif(STRACE is None, reason="strace is not installed")

CALLS = ("mkdir", "openat", "write", "fsync", "rename", "unlink")
LOCK = "runs/toy/train/teacher/seed0/lock"


def changes(folder: Path, lines: list[str]) -> list[tuple[str, int, str]]:
    """(system call, its number among its kind, file) of all calls that change something below the folder.

    strace numbers the calls of each thread by themselves.
    """
    counts: Counter[tuple[str, str]] = Counter()
    found = []
    for line in lines:
        if not (match := re.match(r"(\d+) +(\w+)\((.*)", line)):
            continue
        thread, call, arguments = match.groups()
        counts[thread, call] += 1
        path = re.search(rf'[<"](?:{re.escape(str(folder))}/)?((?:runs|models|results)/[^>"]+)', arguments)
        if path and (call != "openat" or "O_CREAT" in arguments):
            found.append((call, counts[thread, call], path[1]))
    return found


def baseline(folder: Path) -> list[tuple[str, int, str]]:
    """Every change that the command makes, from a run on a copy."""
    copy = shutil.copytree(folder, folder.with_name("baseline"))
    result, lines = traced(copy, *TRAIN, options=(f"--trace={','.join(CALLS)}",))
    assert result.code == 0, result.output
    shutil.rmtree(copy)
    return changes(copy, lines)


@dataclass(frozen=True)
class Disturbed:
    """A run with a fault injected."""

    code: int
    hit: str | None
    """The file that the call was to change; None if it was another call, or the run ended before.

    Notes on progress come by the clock and Python looks into folders anew, so a number is not always the same call.
    """


def inject(folder: Path, call: str, number: int, fault: str) -> Disturbed:
    """Run under the fault, in place."""
    options = (f"--trace={call}", f"--inject={call}:{fault}:when={number}")
    result, lines = traced(folder, *TRAIN, options=options)
    failed = [line for line in lines if "INJECTED" in line]
    if any("+++ killed" in line for line in lines):
        failed = [line for line in lines if re.match(rf"\d+ +{call}\(", line)][-1:]
    hit = next((path for _, _, path in changes(folder, failed)), None)
    if hit:  # else it was Python's file or a pipe of the test's
        assert "Traceback" not in result.output, result.output
    return Disturbed(result.code, hit)


def survives(experiment: Experiment, start: Path, call: str, number: int, fault: str) -> Disturbed:
    """Inject one fault into a copy of `start`, then finish undisturbed."""
    folder = shutil.copytree(start, start.with_name("disturbed"))
    disturbed = inject(folder, call, number, fault)
    result = command(folder, *TRAIN)
    assert result.code == 0, result.output
    assert len(artefact_hashes(folder)) == 2  # model and curve
    assert experiment.unharmed(folder)
    leftovers = [path for path in folder.rglob("*") if ".tmp-" in path.name]
    assert leftovers == []
    shutil.rmtree(folder)
    return disturbed


def test_a_save_is_written_synced_renamed_synced_and_then_recorded(untrained: Path) -> None:
    _, lines = traced(untrained, *TRAIN, options=("--trace=write,fsync,rename",))
    steps = [
        re.sub(r"\.tmp-\w+", ".tmp", f"{match[1]} {Path(match[2]).name}")
        for line in lines
        if (match := re.match(r'\d+ +(\w+)\((?:\d+<|")([^>"]*)', line))
    ]
    first = steps.index("write .step-000000002.pt.tmp")
    folder = next(untrained.glob("runs/toy/train/teacher/seed0/*/final.json")).parent.name
    assert steps[first : first + 8] == [
        "write .step-000000002.pt.tmp",
        "fsync .step-000000002.pt.tmp",
        "rename .step-000000002.pt.tmp",
        f"fsync {folder}",
        "write .step-000000002.json.tmp",
        "fsync .step-000000002.json.tmp",
        "rename .step-000000002.json.tmp",
        f"fsync {folder}",
    ]


def test_a_kill_at_any_call_of_a_publication(experiment: Experiment, tmp_path: Path, injected: Injections) -> None:
    start = experiment.copy(tmp_path / "finished", "models", "results", "logs")
    points = [point for point in baseline(start) if point[0] in ("write", "rename")]
    assert len(points) >= 6
    for call, number, _ in points:
        with injected("kill -9 at a system call of a publication"):
            assert survives(experiment, start, call, number, "signal=SIGKILL").code == -9


@pytest.mark.slow
def test_a_kill_during_saves(experiment: Experiment, untrained: Path, injected: Injections) -> None:
    points = [point for point in baseline(untrained) if "step-" in point[2] and point[0] in ("rename", "unlink")]
    for call, number, _ in points[3:7]:
        with injected("kill -9 at a system call of a save"):
            assert survives(experiment, untrained, call, number, "signal=SIGKILL").code == -9


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_every_call_of_a_run(
    call: str, experiment: Experiment, untrained: Path, injected: Injections
) -> None:
    points = [point for point in baseline(untrained) if point[0] == call]
    hits = 0
    for _, number, _ in points:
        disturbed = survives(experiment, untrained, call, number, "signal=SIGKILL")
        if disturbed.hit:
            hits += 1
            saving, publishing = "step-" in disturbed.hit, disturbed.hit.startswith("models")
            what = "a save" if saving else "a publication" if publishing else "a run, elsewhere"
            with injected(f"kill -9 at a system call of {what}"):
                assert disturbed.code == -9
    assert hits >= max(3, len(points) / 5)


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EDQUOT"])
@pytest.mark.parametrize("call", ["openat", "write", "fsync", "rename"])
def test_a_disk_that_fails_once_costs_nothing(
    call: str, error: str, experiment: Experiment, untrained: Path, injected: Injections
) -> None:
    """A write that fails is tried again; before the work begins, code 9 may end it."""
    points = [point for point in baseline(untrained) if point[0] == call]
    hits = 0
    for _, number, _ in points:
        disturbed = survives(experiment, untrained, call, number, f"error={error}")
        if disturbed.hit:
            hits += 1
            before_work = Path(LOCK).is_relative_to(disturbed.hit)
            with injected(f"{error} at a system call"):
                assert disturbed.code in ({0, 9} if before_work else {0}), disturbed
    assert hits >= max(3, len(points) / 5)
