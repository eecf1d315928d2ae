"""`moonshine fetch`: a published checkpoint as a model of the experiment."""

import pickle
import pickletools
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from moonshine.errors import CheckpointError, DataError, SecurityError
from moonshine.images.store import read_manifest
from moonshine.inputs.download import download
from moonshine.models.architecture import architecture_of
from moonshine.models.model_file import check_state, model_bytes, model_description
from moonshine.models.networks import build_network
from moonshine.params import Params
from moonshine.params.schema import Checkpoint
from moonshine.project import artefacts
from moonshine.project.rows import Row
from moonshine.runtime.files import sha256, write_bytes, write_json
from moonshine.runtime.progress import say

COUNTER = "num_batches_tracked"
"""The batch-norm buffer that files from 2017 lack."""
SAVE_INSTEAD = "if you trust it, load it with the program that made it and save its state_dict() with torch.save"
VARIANCE = "running_var"
"""The batch-norm buffer whose values a network takes the square root of."""
TORCHSCRIPT = "constants.pkl"
"""A file that TorchScript archives have and no others."""


def fetch(params: Params, network: str) -> None:
    """Publish a checkpoint of `params.fetch`, its checksum checked, as models/<experiment>/fetch/<network>.safetensors.

    Raises DataError (exit code 3) for a file other than the pinned one, SecurityError (4) for one that holds more than
    tensors, CheckpointError (8) for one that does not fit the network. Nothing is written then.
    """
    checkpoint, row = params.fetch[network], Row("fetch", network)
    manifest = read_manifest(artefacts.data_folder(params.dataset.name))
    path = _file(checkpoint, Path(params.machine.downloads).expanduser(), params.machine.download_seconds)
    architecture = architecture_of(params.networks[network], len(manifest["classes"]), manifest["shape"][0])
    built = build_network(architecture)
    state = _complete(read_state(path), built.state_dict())
    check_state(built, state, path)
    converted = _converted(state, built.state_dict(), path)
    _require_usable(converted, path)
    built.load_state_dict(converted, assign=True)
    content = model_bytes(built, model_description(row.name, architecture, manifest))
    write_json(
        artefacts.record(params.experiment, row),
        {"row": row.name, "url": checkpoint.url, "sha256": checkpoint.sha256, "bytes": path.stat().st_size},
    )
    target = artefacts.model(params.experiment, row)
    write_bytes(target, content)
    say(f"{target}: {len(state)} tensors of {path}, sha256 {checkpoint.sha256[:16]}")


def _file(checkpoint: Checkpoint, folder: Path, seconds: float) -> Path:
    """The checked file: a local one where it is, a remote one downloaded once, under a name with its hash."""

    def check(path: Path) -> None:
        if (found := sha256(path)) != checkpoint.sha256:
            is_page = path.read_bytes()[:64].lstrip().startswith(b"<")
            raise DataError(
                f"{checkpoint.url}: has sha256 {found}, params.yaml pins {checkpoint.sha256}"
                f"{' (an HTML page)' if is_page else ''}; the file is {path}"
            )

    if "://" not in checkpoint.url:
        path = Path(checkpoint.url).expanduser()
        if not path.is_file():
            raise DataError(f"{path}: no such file; correct fetch in params.yaml")
    else:
        name = Path(urlsplit(checkpoint.url).path).name[-200:]  # without a signature, which may be long
        path = folder / f"{checkpoint.sha256[:16]}-{name}"
        if not path.exists():
            download(checkpoint.url, path, check, seconds)
            return path
    check(path)
    return path


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a PyTorch checkpoint, in today's zip format or the older pickle format; nothing in it is run.

    Weights of another precision become float32, which the networks compute in.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # what matters is reported below
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not zipfile.is_zipfile(path) and not _is_pickle(path):
            raise DataError(f"{path}: not a PyTorch checkpoint, neither an archive nor a pickle") from None
        raise SecurityError(
            f"{path}: holds more than tensors, which could run code; it was not loaded: {SAVE_INSTEAD}"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        if other := _other_format(path):
            raise CheckpointError(f"{path}: is {other}, which could run code; {SAVE_INSTEAD}") from None
        reason = str(error).partition("\n")[0] or "it ends early"
        if "weights_only" in reason:  # torch advises running the file's code
            reason = "torch cannot read it as tensors alone"
        raise DataError(f"{path}: not a PyTorch checkpoint ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: not a mapping of names to tensors; a state dict is needed")
    if unfit := [str(name) for name, tensor in state.items() if not _is_plain(tensor)]:
        raise CheckpointError(
            f"{path}: {unfit[0]} is sparse, quantised, nested or without values; save it as a dense tensor"
        )
    tensors = {str(name): tensor.detach() for name, tensor in state.items()}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _other_format(path: Path) -> str | None:
    """The file's format, if PyTorch writes or wrote it but it is not read here."""
    try:
        if tarfile.is_tarfile(path):
            return "a tar file as PyTorch wrote them until 2016"
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile):
        return None
    return "a TorchScript archive" if any(Path(name).name == TORCHSCRIPT for name in names) else None


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is an array of numbers in memory."""
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)


def _is_pickle(path: Path) -> bool:
    """Whether the file begins with a whole pickle, which is read without running it."""
    try:
        return all(pickletools.genops(path.read_bytes()))
    except ValueError:
        return False


def _complete(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with the batch-norm counters that it lacks added, which evaluation does not use."""
    counters = {name: torch.tensor(0) for name in expected if name.endswith(COUNTER) and name not in state}
    return {**state, **counters}


def _converted(
    state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], path: Path
) -> dict[str, torch.Tensor]:
    """Tensors of the network's own types, each in its own memory, which two names of a checkpoint may share.

    Raises CheckpointError (exit code 8) for a tensor whose type cannot be a weight's.
    """
    for name, tensor in state.items():
        if tensor.is_complex() or (expected[name].is_floating_point() and not tensor.is_floating_point()):
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}, the network computes in floats; save it as such")
    return {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in state.items()}


def _require_usable(state: dict[str, torch.Tensor], path: Path) -> None:
    """Raise CheckpointError (exit code 8) for values from which a network computes nothing but NaN."""
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} has values that are not finite in {tensor.dtype}; pin a sound file")
        if name.endswith(VARIANCE) and (tensor < 0).any():
            raise CheckpointError(f"{path}: {name} has negative variances; pin a sound file")
