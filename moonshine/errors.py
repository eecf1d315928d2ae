"""Errors that a user can cause, each with a documented exit code and a one-line message.

The message says what is wrong, which file or key, and what to do. Anything else that is raised is a bug and
keeps its traceback. The table of codes is in docs/errors.md.
"""


def first_line(error: Exception) -> str:
    """What a library says, for a message of one line."""
    return str(error).strip().partition("\n")[0]


class MoonshineError(Exception):
    """Base of all errors that the user can fix; `exit_code` is what the command returns."""

    exit_code = 1


class ParamsError(MoonshineError):
    """params.yaml or the command line is wrong."""

    exit_code = 2


class DataError(MoonshineError):
    """Data or an artefact is missing, damaged, or not what its manifest says."""

    exit_code = 3


class SecurityError(MoonshineError):
    """A file looks malicious: code in a pickle, a path outside the archive."""

    exit_code = 4


class MachineError(MoonshineError):
    """The machine lacks something: a GPU, a container image, an engine, disk space, permission."""

    exit_code = 5


class LockedError(MoonshineError):
    """Another running process is working on the same files."""

    exit_code = 6


class DivergedError(MoonshineError):
    """The loss, a gradient or a weight stopped being finite."""

    exit_code = 7


class CheckpointError(MoonshineError):
    """A checkpoint or model does not fit what it is loaded into."""

    exit_code = 8


class WriteError(MoonshineError):
    """Reading or writing failed, even after a retry."""

    exit_code = 9


class Interrupted(MoonshineError):
    """A signal asked the process to stop; the work so far is saved. The exit code is 128 + the signal."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + signal_number
