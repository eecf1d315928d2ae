"""`python -m benchmarks.gpu.verified FILE`: write what a report verified into docs/gpu-workstation.md.

`make gpu-check` does so itself on a GPU; this is for a file that the owner of another machine has sent.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import CHECKS, PARTS
from benchmarks.gpu.report import END, FAIL, MACHINE, OK
from benchmarks.separate_project import ROOT
from moonshine.errors import DataError, MoonshineError

PAGE = ROOT / "docs/gpu-workstation.md"
BEGIN, END_OF_TABLE = "<!-- verified: begin -->", "<!-- verified: end -->"
HEADER = [
    "| Card | Driver | torch, CUDA, cuDNN | Date, commit | Verified | Failed | Left out |",
    "|---|---|---|---|---|---|---|",
]
KEY_COLUMNS = 3
"""Of a row; a later report of the same card, driver and versions replaces it."""

Lines = list[dict[str, Any]]


def read_report(path: Path) -> Lines:
    """A report's lines; DataError (exit code 3) unless it is whole: every part, at full size, on a GPU."""
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        machine, end = lines[0], lines[-1]
        kinds, is_rehearsal = (machine["kind"], end["kind"]), machine["device"] != "cuda" or machine["tiny"]
        missing = set(PARTS) - set(machine["parts"])
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; make gpu-check writes it") from None
    except (OSError, ValueError, LookupError, TypeError):
        raise DataError(f"{path}: not a report of make gpu-check") from None
    if kinds != (MACHINE, END):
        raise DataError(f"{path}: the check that wrote it was stopped; run make gpu-check again")
    if is_rehearsal:
        raise DataError(f"{path}: from a rehearsal, which verifies nothing on a GPU")
    if missing:
        raise DataError(f"{path}: without {', '.join(sorted(missing))}; run make gpu-check without naming parts")
    return lines


def row(lines: Lines) -> str:
    """The table's row for a report."""
    machine, findings = lines[0], lines[1:-1]
    failed = [name for name in PARTS if any(line["part"] == name and line["kind"] == FAIL for line in findings)]
    kept = {line["part"] for line in findings if line["kind"] == OK}
    verified = [name for name in CHECKS if name in kept and name not in failed]
    left_out = [line["name"] for line in findings if line.get("left_out")]
    versions = f"{machine['torch']}, {machine['cuda']}, {machine['cudnn']}"
    cells = [
        str(machine["card"] or machine["device"]),
        str(machine["driver"]),
        versions,
        f"{machine['date'].split()[0]}, {machine['commit']}",
        *(", ".join(names) or "nothing" for names in (verified, failed, left_out)),
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def with_row(page: str, new: str) -> str:
    """The page with a row more between the markers, or with it in place of an older one of the same machine.

    DataError (exit code 3) if the page's is newer.
    """
    before, _, rest = page.partition(BEGIN)
    table, _, after = rest.partition(END_OF_TABLE)
    rows = [line for line in table.splitlines() if line.startswith("| ") and line not in HEADER]
    others = [line for line in rows if _key(line) != _key(new)]
    if newer := [line for line in rows if line not in others and _date(line) > _date(new)]:
        raise DataError(f"the table has a newer report of this card and these versions, of {_date(newer[0])}")
    return "\n".join([before + BEGIN, "", *HEADER, *sorted([*others, new]), "", END_OF_TABLE + after])


def _key(line: str) -> list[str]:
    return line.split(" | ")[:KEY_COLUMNS]


def _date(line: str) -> str:
    return line.split(" | ")[KEY_COLUMNS].split(",")[0]


def write_row(report: Path, page: Path) -> None:
    """Write a whole report's row into the page; DataError (exit code 3) if the report is not whole."""
    new = row(read_report(report))
    page.write_text(with_row(page.read_text(), new))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.verified", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="logs/gpu-check.jsonl of a whole check on a GPU")
    try:
        write_row(parser.parse_args().file, PAGE)
    except MoonshineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
