"""What git reports about the repository of the working directory."""

import os
import subprocess

from moonshine.errors import MachineError

NONE_HERE = "not a git repository"


def git(*arguments: str) -> bytes | None:
    """What git prints, or None if it fails, for example for a file that a revision does not have.

    Raises MachineError (exit code 5) if git is missing or refuses the repository, e.g. because of its owner.
    """
    result = _run(*arguments)
    if not result.returncode:
        return result.stdout
    if (reason := why_no_repository()) and NONE_HERE not in reason:
        raise MachineError(f"git refuses: {reason}")
    return None


def why_no_repository() -> str:
    """Git's reason for not working here, in one line; empty if it works."""
    result = _run("rev-parse", "--git-dir")
    return " ".join(result.stderr.decode(errors="replace").split()) if result.returncode else ""


def _run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        raise MachineError("git: not found; install it") from None
