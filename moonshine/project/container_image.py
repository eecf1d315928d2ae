"""Checks that a stage that runs in the project's image runs in the right one."""

import sys
from pathlib import Path

from moonshine.errors import MachineError
from moonshine.project.artefacts import RUNTIME_LOCK


def require_container_image_of_this_lock() -> None:
    """MachineError (exit code 5) in an image that was built from a different lock than this checkout's.

    The image has its lock next to its packages. This applies whether an engine or a person started it.
    """
    built_from = Path(sys.prefix, RUNTIME_LOCK.name)
    if built_from.exists() and RUNTIME_LOCK.exists() and built_from.read_bytes() != RUNTIME_LOCK.read_bytes():
        cure = "rebuild it with `make image` or `make sif`"
        raise MachineError(f"this image was built from another {RUNTIME_LOCK}; {cure}")
