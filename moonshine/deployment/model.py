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
    """A published model, or an .onnx or .xml file of `moonshine export` or of a stage: network and description.

    Raises DataError (exit code 3) if a file is missing or damaged, of another program, or has feature maps as outputs,
    MachineError (5) if it is OpenVINO's, which is not installed.
    """
    if model.suffix not in (".onnx", ".xml"):
        return load_model(model)
    network, metadata = _load_onnx(model) if model.suffix == ".onnx" else _load_openvino(model)
    if "features" in metadata:
        raise DataError(f"{model}: gives feature maps, not classes; export the model without --features")
    try:
        description: dict[str, Any] = {key: json.loads(text) for key, text in metadata.items() if key in KEYS}
    except ValueError as error:
        raise DataError(f"{model}: its metadata are unreadable ({first_line(error)}); export it again") from None
    if lacking := sorted(KEYS - description.keys()):
        raise DataError(f"{model}: not of `moonshine export`, its metadata lack {', '.join(lacking)}")
    described = cast(ModelDescription, description)
    if wrong := wrong_in_description(described):
        raise DataError(f"{model}: its description is wrong ({wrong}); export it again")
    return network, described


def _load_onnx(model: Path) -> tuple[nn.Module, dict[str, str]]:
    from moonshine.export.session import OnnxNetwork

    content = _read(model)
    try:
        network = OnnxNetwork(content)
    except Exception as error:  # noqa: BLE001 (onnxruntime's errors have no common class)
        raise DataError(f"{model}: not a readable ONNX file ({first_line(error)})") from None
    return network, network.metadata


def _load_openvino(model: Path) -> tuple[nn.Module, dict[str, str]]:
    from moonshine.deployment.openvino_file import OpenVinoModel, OpenVinoNetwork

    content, weights = _read(model), model.with_suffix(".bin")
    if not weights.exists():
        raise DataError(f"{weights}: missing, it has the weights of {model.name}; copy it there, or export again")
    try:
        network = OpenVinoModel(content, _read(weights))
    except DataError as error:
        raise DataError(f"{model}: {error}; copy both files again, or export again") from None
    return OpenVinoNetwork(network), network.metadata


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


KEYS = ModelDescription.__required_keys__
