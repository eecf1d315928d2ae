"""The model file that a user names."""

from pathlib import Path

from moonshine.errors import ParamsError


def refuse_folder(model: Path) -> None:
    """Raise ParamsError (exit code 2) for a folder, which else passes for a damaged file that is to be deleted."""
    if model.is_dir():
        raise ParamsError(f"{model}: is a folder; name a model file")
