"""The last lines of .ci/run, 20 at most: `digest.py FOLDER MINUTES`. Needs nothing but Python.

FOLDER has `parts`, with lines "TARGET:exit code" for the targets of make, the last of which count; and for each target
TARGET.log with what it printed, and TARGET.tests, which tests/conftest.py writes.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

WIDTH = 400
SKIPPED, DEFECTS, FAILED = 6, 4, 8
"""Most lines of each kind."""
NO_TIME = "no time was left"
"""As tests/conftest.py has it."""
STOPPED = {"124": " (its time was over)", "137": " (its time was over)", "begun": " (stopped)"}

Events = dict[str, dict[str, str]]
"""Test -> its last event, with "outcome" and "reason"."""


def lines_of(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def events_of(folder: Path, target: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in lines_of(folder / f"{target}.tests")]


def failures(folder: Path, target: str, code: str, last: Events) -> Iterator[str]:
    """A line for each test that failed or did not end; if there is none, one with the end of what the part printed."""
    part, unended = f"FAILED make {target}{STOPPED.get(code, '')}", ("started", "rerun")
    tests = {test: event for test, event in last.items() if event["outcome"] in ("failed", *unended)}
    for test, event in tests.items():
        yield f"{part}: {test}: {'did not end' if event['outcome'] in unended else event['reason']}"
    if not tests:
        printed = [line for line in lines_of(folder / f"{target}.log") if line.strip() and not line.startswith("make")]
        yield f"{part}: {' | '.join(line.strip() for line in printed[-4:])}"


def passed_later(target: str, events: list[dict[str, str]], last: Events) -> Iterator[str]:
    """A line for each test that failed at first."""
    tries = Counter(event["test"] for event in events if event["outcome"] == "rerun")
    reasons = {event["test"]: event["reason"] for event in events if event["outcome"] == "rerun"}
    for test in (test for test in tries if last[test]["outcome"] == "passed"):
        yield f"DEFECT although it passed at last: make {target}: {test} failed {tries[test]} times: {reasons[test]}"


def files(tests: list[str]) -> str:
    """How many tests, and of which files."""
    names = sorted({test.partition("::")[0].removeprefix("tests/") for test in tests})
    return f"{len(tests)} of {', '.join(names)}"


def at_most(count: int, lines: list[str]) -> list[str]:
    """So many lines; the last then counts the others, with as much of them as fits."""
    if len(lines) <= count:
        return lines
    more = lines[count - 1 :]
    return [*lines[: count - 1], f"and {len(more)} more: " + "; ".join(more)]


def digest(folder: Path, minutes: str) -> list[str]:
    failed, again, left_out, outcomes = [], [], [], Counter[str]()
    for target, code in dict(line.split(":") for line in lines_of(folder / "parts")).items():
        if code == "left out":
            left_out.append(f"SKIPPED make {target}: {NO_TIME}")
            continue
        events = events_of(folder, target)
        last = {event["test"]: event for event in events}
        outcomes.update(event["outcome"] for event in last.values())
        again += list(passed_later(target, events, last))
        skipped = [event for event in last.values() if event["outcome"] == "skipped"]
        for reason in sorted({event["reason"] for event in skipped}, key=NO_TIME.__ne__):
            tests = [event["test"] for event in skipped if event["reason"] == reason]
            left_out.append(f"SKIPPED make {target}: {reason}: {files(tests)}")
        if code != "0":
            failed += failures(folder, target, code, last)
    counts = {"passed": outcomes["passed"], "failed": len(failed), "skipped": outcomes["skipped"], "rerun": len(again)}
    return [
        f"---- after {minutes} minutes ----",
        *at_most(SKIPPED, left_out),
        *at_most(DEFECTS, again),
        *at_most(FAILED, failed),
        ", ".join(f"{count} {outcome}" for outcome, count in counts.items()),
    ]


if __name__ == "__main__":
    for line in digest(Path(sys.argv[1]), sys.argv[2]):
        print(line if len(line) <= WIDTH else line[: WIDTH - 1] + "…")
