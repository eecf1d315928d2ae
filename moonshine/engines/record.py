"""`moonshine record`: tell DVC what Snakemake made."""

import subprocess
import sys
from collections.abc import Sequence

from moonshine.errors import DataError
from moonshine.progress import say


def record(stages: Sequence[str]) -> None:
    """Write the present state of these stages, their inputs, params and outputs, into dvc.lock and DVC's cache.

    Only stages that really ran may be named, and never none: DVC would then record every stage, stale ones as well.
    `--no-relink` leaves modification times alone, which Snakemake goes by.
    """
    assert stages
    command = [sys.executable, "-m", "dvc", "commit", "--quiet", "--force", "--no-relink", *stages]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise DataError(f"dvc commit failed: {' '.join((result.stderr or result.stdout).split())}")
    say(f"recorded {len(stages)} stages in dvc.lock")
