"""What Snakemake plans, and what it has recorded of the jobs that it ran."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moonshine.checks.made_for import find_mismatches
from moonshine.errors import DataError, LockedError
from moonshine.params import Params
from moonshine.project.artefacts import SNAKEMAKE_TIMESTAMP

METADATA = Path(".snakemake", "metadata")
LONG_AGO = 1
"""Modification time given to stale files, in seconds since 1970. Snakemake treats 0 as no time at all."""


def snakemake(*arguments: str) -> str:
    """Run Snakemake with the project's default profile; returns what it prints on stdout."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        message = " ".join((result.stderr.strip() or result.stdout.strip()).splitlines()[-8:])
        if "cannot be locked" in result.stderr + result.stdout:
            raise LockedError(
                "another Snakemake is running here; wait for it (if it was killed: `snakemake --unlock`) and try again"
            )
        raise DataError(f"snakemake {arguments[0]} failed: {message}")
    return result.stdout


@dataclass(frozen=True)
class Plan:
    """Output files, by what Snakemake would do with them."""

    pending: frozenset[str]
    """To be made, or made again."""
    remembered: frozenset[str]
    """With a record of how they were made. Without one, Snakemake notices no change of params or code."""

    @classmethod
    def empty(cls) -> "Plan":
        return cls(frozenset(), frozenset())


def read_plan(targets: Iterable[str] = ()) -> Plan:
    """Snakemake's plan for these files and everything they need; by default for the whole experiment."""
    lines = snakemake("--summary", "--", *targets).splitlines()
    header = lines[0].split("\t")
    rows = [dict(zip(header, line.split("\t"))) for line in lines[1:]]
    return Plan(
        frozenset(row["output_file"] for row in rows if row["plan"] != "no update"),
        frozenset(row["output_file"] for row in rows if row["log-file(s)"] != "-"),
    )


def job_metadata(path: str) -> dict[str, Any] | None:
    """What Snakemake noted when the job that made this file ended: `input`, `starttime`, `endtime` and more."""
    try:
        return json.loads(_memory_file(path).read_text())
    except (OSError, ValueError):
        return None


def forget(path: str) -> None:
    """Remove the record of this file, as `snakemake --cleanup-metadata` does."""
    _memory_file(path).unlink(missing_ok=True)


def make_stale(paths: Iterable[str]) -> None:
    """Make Snakemake rerun the jobs of these files: date them before any input and delete the record of each.

    (With the record, a newer input that has the recorded checksum would not be a reason to run.)
    """
    for name in paths:
        forget(name)
        path = Path(name)
        dated = path / SNAKEMAKE_TIMESTAMP  # not created here: a folder in place of a file has none
        if dated.is_file() and not path.is_symlink():
            path = dated
        if os.path.lexists(path):
            os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)


def make_mismatches_stale(params: Params) -> None:
    """Make Snakemake remake artefacts whose own records name other params, data or models than the current ones.

    It would not notice by itself: for files made by hand or copied in, it has no record of the params that made them.
    If files are as its own jobs left them, it does notice other params, and an edit of params.yaml that is undone costs
    nothing.
    """
    unnoticed = (each for each in find_mismatches(params) if not (each.of_params and _is_as_its_job_left_it(each.path)))
    make_stale(str(each.path) for each in unnoticed)


def _is_as_its_job_left_it(path: Path) -> bool:
    made = job_metadata(str(path))
    return made is not None and path.lstat().st_mtime <= made["endtime"] + 1e-6


def _memory_file(path: str) -> Path:
    """Snakemake names its records by the base64 of the path, split into parts that a file name can hold."""
    name = base64.urlsafe_b64encode(path.encode()).decode()
    longest = os.pathconf(METADATA, "PC_NAME_MAX") - 1 if METADATA.is_dir() else 254
    parts = [name[start : start + longest] for start in range(0, len(name), longest)]
    return METADATA.joinpath(*("@" + part for part in parts[:-1]), parts[-1])
