"""The file that makes DVC's stages run after the one that checks params.yaml."""

from moonshine.project import artefacts
from moonshine.runtime.files import write_text

TEXT = "params.yaml is valid; every stage of dvc.yaml depends on this file\n"


def mark_checked() -> None:
    """Write the output of the stage `check`, for callers that have read params.yaml; leave it alone if it is there."""
    path = artefacts.PARAMS_CHECKED
    if not path.is_file() or path.read_text(errors="replace") != TEXT:
        write_text(path, TEXT)
