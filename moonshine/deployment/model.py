"""The model file that a user names."""

import json
from pathlib import Path
from typing import Any, cast

from torch import nn

from moonshine.errors import DataError, ParamsError, first_line
from moonshine.models.description import wrong_in_description
from moonshine.models.model_file import load_model
from moonshine.project.records import ModelDescription


def refuse_folder(model: Path) -> None:
    """Raise ParamsError (exit code 2) for a folder, which otherwise would pass for a damaged file to delete."""
    if model.is_dir():
        raise ParamsError(f"{model}: is a folder; name a model file")


def load_any(model: Path) -> tuple[nn.Module, ModelDescription]:
    """A published model, or an .onnx file of `moonshine export` or of a stage: its network and its description.

    Raises DataError (exit code 3) if the file is missing or damaged, or an ONNX file of another program.
    """
    return _load_onnx(model) if model.suffix == ".onnx" else load_model(model)


def _load_onnx(model: Path) -> tuple[nn.Module, ModelDescription]:
    from moonshine.export.session import OnnxNetwork

    try:
        network = OnnxNetwork(model.read_bytes())
        description: dict[str, Any] = {key: json.loads(text) for key, text in network.metadata.items() if key in KEYS}
    except OSError as error:
        raise DataError(f"{model}: cannot be read ({error.strerror})") from None
    except Exception as error:  # noqa: BLE001 (onnxruntime's errors have no common class)
        raise DataError(f"{model}: not a readable ONNX file ({first_line(error)})") from None
    if lacking := sorted(KEYS - description.keys()):
        raise DataError(f"{model}: not of `moonshine export`, its metadata lack {', '.join(lacking)}")
    described = cast(ModelDescription, description)
    if wrong := wrong_in_description(described):
        raise DataError(f"{model}: its description is wrong ({wrong}); export it again")
    return network, described


KEYS = ModelDescription.__required_keys__
