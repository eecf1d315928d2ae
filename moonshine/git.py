"""What git says of the repository that the working directory lies in."""

import subprocess

from moonshine.errors import MachineError


def git(*arguments: str) -> bytes | None:
    """What git prints, or None where it fails, as for a file that a revision does not have.

    Raises MachineError (exit code 5) where it is not installed.
    """
    try:
        result = subprocess.run(["git", *arguments], capture_output=True)
    except FileNotFoundError:
        raise MachineError("git: not found; install it") from None
    return None if result.returncode else result.stdout
