"""Weights from files of other programs: PyTorch checkpoints and safetensors files, as people have them.

A file may be a state dict or a training's checkpoint with a state dict in it, with names as DataParallel, torch.compile
or a Lightning module write them, in any precision. Nothing in a file is ever run.
"""

import argparse
import pickle
import pickletools
import struct
import tarfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from moonshine.errors import CheckpointError, DataError, SecurityError
from moonshine.models.model_file import state_differences
from moonshine.models.networks import build_network
from moonshine.models.torchvision_networks import AUXILIARY_HEADS
from moonshine.project.records import Architecture
from moonshine.runtime.progress import say

State = dict[str, torch.Tensor]

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Entries in which checkpoints of trainings have the state dict, in the order in which they are looked for."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning modules put before every name."""
COUNTER = "num_batches_tracked"
"""The batch-norm buffer that files from 2017 lack."""
SAVE_INSTEAD = "if you trust it, load it with the program that made it and save its state_dict() with torch.save"
VARIANCE = "running_var"
"""The batch-norm buffer whose values a network takes the square root of."""
TORCHSCRIPT = "constants.pkl"
"""A file that TorchScript archives have and no others."""


def read_state(path: Path) -> State:
    """The tensors of a weight file by their names in the network; nothing in the file is run.

    Reads safetensors files, PyTorch's zip format and its older pickle format. Of a training's checkpoint the state dict
    is taken, and PREFIXES that all names have are removed; a line on stderr says so. Weights of another precision
    become float32, which the networks compute in. Raises DataError (exit code 3) for another kind of file,
    SecurityError (4) for one that holds more than data, CheckpointError (8) for one without a plain state dict.
    """
    content = _read_safetensors(path) if _is_safetensors(path) else _read_pytorch(path)
    state, notes = _unwrapped(content, path)
    if unfit := [str(name) for name, tensor in state.items() if not _is_plain(tensor)]:
        raise CheckpointError(
            f"{path}: {unfit[0]} is sparse, quantised, nested or without values; save it as a dense tensor"
        )
    tensors, prefix = _without_prefixes({str(name): tensor.detach() for name, tensor in state.items()})
    if prefix:
        notes.append(f'removed "{prefix}" before all names')
    if notes:
        say(f"{path}: {'; '.join(notes)}")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def whole_network(state: State, architecture: Architecture, path: Path) -> State:
    """The tensors of a network from a file's state, of the network's own types and each in its own memory.

    Batch-norm counters that the file lacks are added, heads that only training uses are left out. Raises
    CheckpointError (exit code 8) with the likely cause if the file does not fit, or holds values that are no weights.
    """
    return _fitted(state, architecture, path, without=set())


def all_but_the_head(state: State, architecture: Architecture, path: Path) -> State:
    """The same without the classifier head, in whose place the file may have any other or none."""
    return _fitted(state, architecture, path, without=head_of(architecture))


def same_tensors(state: Mapping[str, torch.Tensor], architecture: Architecture, same_classes: bool = True) -> State:
    """Those tensors of another network that have the names and shapes of this one's.

    None if no layer's weights are among them: a bias of the classes or batch norms' counters fit many networks. If the
    networks are not for the `same_classes`, the classifier head is left out, even if the numbers of classes are equal.
    """
    without = set() if same_classes else head_of(architecture)
    tensors = build_network(architecture).state_dict().items()
    shapes = {name: tensor.shape for name, tensor in tensors if name not in without}
    same = {name: tensor for name, tensor in state.items() if shapes.get(name) == tensor.shape}
    return same if any(tensor.dim() > 1 for tensor in same.values()) else {}


def head_of(architecture: Architecture) -> set[str]:
    """Names of the classifier head's tensors: those whose shapes depend on the number of classes."""
    one_more: Architecture = {**architecture, "classes": architecture["classes"] + 1}
    these, others = (
        {name: tensor.shape for name, tensor in build_network(each).state_dict().items()}
        for each in (architecture, one_more)
    )
    return {name for name in these if these[name] != others[name]}


def _is_safetensors(path: Path) -> bool:
    """By its first bytes, the length of a JSON header and its brace, or by its name."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return start[8:] == b"{" or path.suffix == ".safetensors"


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, LookupError, RecursionError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from None


def _read_pytorch(path: Path) -> Any:
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # what matters is reported below
            torch.serialization.safe_globals([argparse.Namespace]),  # a training's options: attributes, no code
        ):
            return torch.load(path, map_location="cpu", weights_only=True)
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


def _is_pickle(path: Path) -> bool:
    """Whether the file begins with a whole pickle, which is read without running it."""
    try:
        return all(pickletools.genops(path.read_bytes()))
    except ValueError:
        return False


def _unwrapped(content: Any, path: Path) -> tuple[Mapping[Any, torch.Tensor], list[str]]:
    """The state dict in a file's content, and what to say if it was one of several entries."""
    if _is_state(content):
        return content, []
    entries = content if isinstance(content, dict) else {}
    for name in WRAPPERS:
        if name in entries and _is_state(entries[name]):
            others = ", ".join(sorted(str(other) for other in entries if other != name))
            return entries[name], [f"took the entry {name}" + (f", not {others}" if others else "")]
    found = f"; its entries are {', '.join(map(str, list(entries)[:10]))}" if entries else ""
    raise CheckpointError(
        f"{path}: not a mapping of names to tensors; a state dict is needed, alone or as {' or '.join(WRAPPERS)}{found}"
    )


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, torch.Tensor) for each in value.values())


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is an array of numbers in memory."""
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)


def _without_prefixes(state: State) -> tuple[State, str]:
    """The state without the PREFIXES that all its names have, and these."""
    removed = ""
    while prefix := next((each for each in PREFIXES if state and all(name.startswith(each) for name in state)), ""):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        removed += prefix
    return state, removed


def _fitted(state: State, architecture: Architecture, path: Path, without: Collection[str]) -> State:
    network = build_network(architecture).state_dict()
    expected = {name: tensor for name, tensor in network.items() if name not in without}
    auxiliary = AUXILIARY_HEADS.get(architecture["arch"], ())
    found = {name: each for name, each in state.items() if name not in without and not name.startswith(auxiliary)}
    counters = {name: torch.tensor(0) for name in expected if name.endswith(COUNTER) and name not in found}
    found |= counters
    if differences := state_differences(expected, found):
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        cause = _likely_cause(expected, found, architecture)
        raise CheckpointError(f"{path}: does not fit the network: {'; '.join(differences[:3])}{more}; {cause}")
    converted = _converted(found, expected, path)
    _require_usable(converted, path)
    return converted


def _likely_cause(expected: State, found: State, architecture: Architecture) -> str:
    """Why tensors do not fit a network, and what to do about it."""
    shapes, here = ({name: tuple(each.shape) for name, each in state.items()} for state in (expected, found))
    if shapes.keys() == here.keys():
        wrong = {name for name in shapes if shapes[name] != here[name]}
        head = head_of(architecture)
        if wrong <= head:
            name = min(wrong, key=lambda name: -len(shapes[name]))
            classes = here[name][0] if here[name] else "no"
            return (
                f"{name} is for {classes} classes, the network has {architecture['classes']}: pin a checkpoint of "
                f"these classes, begin a training with it by `init`, or name it in `fetch_teacher`, classes: {classes}"
            )
        first = next(name for name, shape in shapes.items() if len(shape) == 4)
        if wrong - head == {first} and len(here[first]) == 4:
            return f"{first} is for {here[first][1]} channels, the images have {architecture['in_channels']}"
    before = Counter(name.removesuffix(own) for own in shapes for name in here if name.endswith(f".{own}"))
    prefix, count = before.most_common(1)[0] if before else ("", 0)
    if count > len(shapes) / 2:
        return f'the network\'s names begin with "{prefix}" there: save only that part, without "{prefix}"'
    return f"is it of another architecture than {architecture['arch']}, or of another conv, channels or stem?"


def _converted(state: State, expected: State, path: Path) -> State:
    """Tensors of the network's own types, each in its own memory, which two names of a checkpoint may share.

    Raises CheckpointError (exit code 8) for a tensor whose type cannot be a weight's.
    """
    for name, tensor in state.items():
        if tensor.is_complex() or (expected[name].is_floating_point() and not tensor.is_floating_point()):
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}, the network computes in floats; save it as such")
    return {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in state.items()}


def _require_usable(state: State, path: Path) -> None:
    """Raise CheckpointError (exit code 8) for values from which a network computes nothing but NaN."""
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} has values that are not finite in {tensor.dtype}; pin a sound file")
        if name.endswith(VARIANCE) and (tensor < 0).any():
            raise CheckpointError(f"{path}: {name} has negative variances; pin a sound file")
