"""The folder of a search: runs/<experiment>/search/<name>/<identity>/, with the checkpoints of its ranking."""

from pathlib import Path

from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.runs.identity import search_identity
from moonshine.runs.run_folder import claim


def open_search(params: Params, name: str) -> Path:
    """The folder of the search that these params, code and data ask for, locked until the process ends.

    Raises LockedError (exit code 6) while another process has it.
    """
    return claim(artefacts.search_runs(params.experiment, name), search_identity(params, name))
