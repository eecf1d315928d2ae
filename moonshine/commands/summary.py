"""`moonshine summary`: what changed in the results since a commit, as Markdown for a pull request."""

import csv
import io
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

from moonshine.errors import MachineError, ParamsError
from moonshine.project.git import NONE_HERE, git, why_no_repository
from moonshine.report.markdown import escape

RESULTS = Path("results")
SHOWN = {
    "seeds": "Seeds",
    "parameters": "No. Params",
    "macs": "MACs",
    "top1": "Top-1 error, %",
    "top5": "Top-5 error, %",
    "int8_top1": "Top-1 error in int8, %",
    "int8_top5": "Top-5 error in int8, %",
}
ERRORS = ("top1", "top5", "int8_top1", "int8_top5")


def summary(revision: str) -> str:
    """Each table with rows that differ from `revision`, as `old → new`, followed by `dvc metrics diff`.

    Raises ParamsError (exit code 2) for an unknown revision, MachineError (5) without DVC or a repository.
    """
    if NONE_HERE in why_no_repository():
        raise MachineError("moonshine summary compares with git's history, and this is not a git repository")
    name = _git("rev-parse", "--short", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
    if not name:
        raise ParamsError(f"--against {revision}: unknown git revision")
    paths = {Path(line) for line in _git("ls-tree", "-r", "--name-only", revision, "--", "results").splitlines()}
    paths |= set(RESULTS.glob("*/tables/*.csv"))
    tables = sorted(path for path in paths if path.match("results/*/tables/*.csv"))
    blocks = [block for path in tables if (block := _changed_table(path, revision))]
    heading = f"## Results since {name}"
    if not blocks:
        return f"{heading}\n\nNo table has changed.\n"
    scores = f"<details><summary>dvc metrics diff</summary>\n\n{_metrics(revision)}\n\n</details>"
    return "\n\n".join([heading, *blocks, scores]) + "\n"


def _changed_table(path: Path, revision: str) -> str:
    """The rows of one table that differ, or nothing."""
    before = _read(_git("show", f"{revision}:./{path.as_posix()}"))
    after = _read(path.read_text() if path.exists() else "")
    changed = [row for row in {**after, **before} if _cells(before.get(row)) != _cells(after.get(row))]
    lines = []
    for row in changed:
        title = (after.get(row) or before[row])["title"]
        lines.append(
            [escape(title), *(_change(*pair) for pair in zip(_cells(before.get(row)), _cells(after.get(row))))]
        )
    if not lines:
        return ""
    used = [index for index in range(len(SHOWN) + 1) if any(line[index] for line in lines)]
    headers = ["Model", *SHOWN.values()]
    table = tabulate(
        [[line[index] for index in used] for line in lines],
        [headers[index] for index in used],
        "pipe",
        disable_numparse=True,
        colalign=["left", *["right"] * (len(used) - 1)],
    )
    return f"### {escape(path.parts[1])}: {escape(path.stem)}\n\n{table}"


def _read(text: str) -> dict[str, dict[str, str]]:
    return {line["row"]: line for line in csv.DictReader(io.StringIO(text))}


def _cells(line: dict[str, str] | None) -> list[str]:
    """The cells of a table row, empty if it is absent or has not run."""
    if line is None or line["seeds"] == "0":
        return [""] * len(SHOWN)
    return [_cell(line, column) for column in SHOWN]


def _cell(line: dict[str, str], column: str) -> str:
    value, deviation = line.get(column), line.get(f"{column}_std")
    if not value or column not in ERRORS:
        return f"{int(float(value)):,}" if value else ""
    return f"{float(value):.2f}" + (f" ± {float(deviation):.2f}" if deviation else "")


def _change(old: str, new: str) -> str:
    return new if old == new else f"{old or 'none'} → **{new or 'none'}**"


def _metrics(revision: str) -> str:
    result = _run([sys.executable, "-m", "dvc", "metrics", "diff", "--md", revision])
    if result.returncode:
        raise MachineError(f"dvc metrics diff failed: {' '.join(result.stderr.split())}")
    lines = result.stdout.strip().splitlines()
    lines = [*lines[:2], *(line for line in lines[2:] if not _of_another_experiment(line, revision))]
    return "\n".join(lines) if len(lines) > 2 else "No score has changed."


def _of_another_experiment(line: str, revision: str) -> bool:
    """Whether the line's file existed then and exists now: DVC reports metrics of inactive experiments as absent."""
    path, _, before, after, *_ = (cell.strip() for cell in line.strip("|").split("|"))
    return "-" in (before, after) and Path(path).exists() and bool(_git("ls-tree", revision, "--", path))


def _git(*arguments: str) -> str:
    """What git prints; empty if it fails, as for a file that a revision does not have."""
    return (git(*arguments) or b"").decode()


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise MachineError(f"{command[0]}: not found; install it") from None
