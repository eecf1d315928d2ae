"""Published models: safetensors files with everything needed to use them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import nn

from moonshine.errors import CheckpointError, DataError, ParamsError
from moonshine.models.description import wrong_in_description
from moonshine.models.networks import build_network
from moonshine.project.records import Architecture, Manifest, ModelDescription

METADATA_KEY = "moonshine"
CHECKSUM = "checksum"
FORMAT = 1
UNBUILDABLE = (
    ParamsError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What building a network from a made-up architecture may raise."""


def model_description(name: str, architecture: Architecture, manifest: Manifest) -> ModelDescription:
    """All that is needed to use a model apart from its weights, from the manifest of the data that it was made for.

    "name" within its experiment, "architecture", "input" (channels, height, width), "preprocessing", "normalisation"
    (mean and std of each channel on a 0..1 scale), "classes" (names by label). Preprocessing is "resize", the whole
    image to (height, width), for small images; for JPEG images "shorter_side" and "crop", and "exif_orientation" if
    they are turned upright first.
    """
    height, width = manifest["shape"][1:]
    if manifest["encoding"] == "raw":
        preprocessing: dict[str, Any] = {"resize": [height, width]}
    else:
        preprocessing = {"shorter_side": manifest["evaluation"]["resize"], "crop": [height, width]}
        if manifest.get("exif_orientation"):
            preprocessing["exif_orientation"] = True
    return {
        "name": name,
        "architecture": architecture,
        "input": manifest["shape"],
        "preprocessing": preprocessing,
        "normalisation": manifest["normalisation"],
        "classes": manifest["classes"],
    }


def model_bytes(network: nn.Module, description: ModelDescription) -> bytes:
    """The file's content; equal weights and descriptions (from `model_description`) give equal bytes.

    The description is a single JSON entry because safetensors writes several metadata entries in no fixed order.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    described = {"format": FORMAT, **description}
    text = json.dumps({**described, CHECKSUM: _checksum(described, state)}, sort_keys=True)
    return to_safetensors(state, metadata={METADATA_KEY: text})


def read_description(path: Path) -> ModelDescription:
    """The description in a model file, without its weights."""
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[METADATA_KEY])
    except FileNotFoundError:
        raise DataError(f"{path}: no such model; run its stage or `dvc pull`") from None
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error}); {_cure(path)}") from None
    except KeyError:
        raise CheckpointError(f"{path}: a safetensors file, but not one of this project's models") from None
    if not isinstance(description, dict) or "architecture" not in description:
        raise DataError(f"{path}: its description is damaged; {_cure(path)}")
    if description.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {description.get('format')}, this version reads {FORMAT}")
    return cast(ModelDescription, description)


def _cure(path: Path) -> str:
    """What to do about it; files elsewhere are not the project's to delete and need not be models."""
    if path.parent.resolve().is_relative_to(Path("models").resolve()):  # the file itself may be a link to DVC's cache
        return "delete it and run its stage or `dvc pull`"
    return "name a model of this project, or get it again"


def _checksum(description: Mapping[str, Any], state: dict[str, torch.Tensor]) -> str:
    """Hex sha256 of all of a model file's content, so that no damage goes unnoticed."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_model(path: str | Path, name: str | None = None) -> tuple[nn.Module, ModelDescription]:
    """The network with its weights on the CPU, in eval mode, and its description.

    Raises DataError (exit code 3) if the file is damaged, its description cannot be true, or it is not the
    experiment's model `name` (if given); CheckpointError (8) if weights and architecture disagree.
    """
    path = Path(path)
    description = read_description(path)
    with safe_open(path, framework="pt") as file:
        # copies, because safe_open's tensors keep the whole file mapped
        state = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 (not a mapping)
    noted, described = description.get(CHECKSUM), {key: each for key, each in description.items() if key != CHECKSUM}
    if noted != _checksum(described, state):
        raise DataError(f"{path}: damaged, its checksum is wrong; {_cure(path)}")
    if name is not None and description.get("name") != name:
        raise DataError(f"{path}: is the model {description.get('name')!r}; {_cure(path)}")
    if wrong := wrong_in_description(description):
        raise DataError(f"{path}: its description is wrong ({wrong}); {_cure(path)}")
    network = _build(description["architecture"], path)
    check_state(network, state, path)
    for key, tensor in network.state_dict().items():
        if state[key].dtype != tensor.dtype:
            raise CheckpointError(f"{path}: {key} is {state[key].dtype}, the network computes in {tensor.dtype}")
    network.load_state_dict(state, assign=True)
    return network.eval(), cast(ModelDescription, described)


def _build(architecture: Architecture, path: Path) -> nn.Module:
    try:
        network = build_network(architecture)
        for point in architecture.get("points") or ():
            network.get_submodule(point)
    except UNBUILDABLE as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: this version cannot build {architecture}: {reason}") from None
    return network


def check_state(network: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Raise a CheckpointError that names the differences between a state dict and a network."""
    if differences := state_differences(network.state_dict(), state):
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise CheckpointError(f"{path}: does not fit the network: {'; '.join(differences[:3])}{more}")


def state_differences(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> list[str]:
    """How names and shapes of tensors differ from those of a network, each difference in words."""
    shapes, here = ({name: tuple(tensor.shape) for name, tensor in state.items()} for state in (expected, found))
    return [
        *(f"{name} is missing" for name in sorted(shapes.keys() - here.keys())),
        *(f"{name} is not in the network" for name in sorted(here.keys() - shapes.keys())),
        *(
            f"{name} has shape {here[name]}, the network {shapes[name]}"
            for name in sorted(shapes.keys() & here.keys())
            if shapes[name] != here[name]
        ),
    ]
