"""Whether the networks of params.yaml can be built and run, before anything is trained."""

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from moonshine.errors import ParamsError, first_line
from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.convolutions import reasons_to_keep
from moonshine.models.networks import build_network
from moonshine.models.norms import norm_parameters
from moonshine.models.weight_file import same_tensors
from moonshine.params import Params
from moonshine.params.schema import TEACHER
from moonshine.project.records import Architecture
from moonshine.project.rows import parse_model
from moonshine.runtime.suggest import suggest_path

IMPOSSIBLE = (RuntimeError, AssertionError, ValueError, IndexError, TypeError)
"""What torch raises if layer sizes do not fit each other or the images, or exceed any memory."""


def check_networks(params: Params, names: Iterable[str] | None = None) -> None:
    """Build networks, all or the named ones, without weights, and run the shape of an image through each.

    Raises ParamsError (exit code 2) with one line per network that cannot be built, lacks an attention point, has
    nothing to substitute, cannot take the images, would begin with nothing of the teacher, or lacks the normalisation
    layers that its recipe has a weight decay for.
    """
    dataset, learners = params.dataset, params.attention_students
    mistakes: list[str] = []
    chosen = list(params.networks if names is None else names)
    for name in chosen:
        found = list(_mistakes(params.architecture(name), dataset.size, name in learners))
        found += [] if found else _useless_decay(params, name)
        mistakes += (f"networks.{name}: {mistake}" for mistake in [*found, *_useless_start(params, name)])
    if mistakes := mistakes or list(dict.fromkeys(_unfit_crops(params, chosen))):
        raise ParamsError("\n".join(mistakes))


def _unfit_crops(params: Params, names: Collection[str]) -> Iterator[str]:
    """That one of these networks, or the teacher it learns from, cannot take images of `crop_size`."""
    channels = params.dataset.channels
    for row in params.seeded_rows:
        size = params.training_size(row)
        if size == params.dataset.size or row.network not in names:
            continue
        key = f"{params.recipe_key(row, 'augmentation')}.crop_size"
        for name in (row.network, *([parse_model(params.teacher)[0].network] if row.method else [])):
            try:
                network = build_network(params.architecture(name))
            except (ParamsError, *IMPOSSIBLE):  # a teacher that is none of the named networks
                continue
            yield from (f"{key}: {name} {refusal}" for refusal in _refusal(network, (), channels, size, learns=False))


def _useless_start(params: Params, name: str) -> Iterator[str]:
    """That `init: teacher` would take nothing, unless either network cannot be built, which is reported already."""
    if params.networks[name].init != TEACHER:
        return
    teacher = parse_model(params.teacher)[0].network
    try:
        state = build_network(params.architecture(teacher)).state_dict()
        if not same_tensors(state, params.architecture(name), same_classes=not params.teacher_has_other_classes):
            yield f"init: the teacher's network {teacher} has no weight of the same name and shape; leave it out"
    except (ParamsError, *IMPOSSIBLE):
        return


def _useless_decay(params: Params, name: str) -> Iterator[str]:
    """Keys with a weight decay for normalisation layers, if a network has none of them."""
    rows = [row for row in params.seeded_rows if row.network == name]
    given = [row for row in rows if params.recipe_of(row).norm_weight_decay is not None]
    if given and not norm_parameters(build_network(params.architecture(name))):
        for key in dict.fromkeys(params.recipe_key(row, "norm_weight_decay") for row in given):
            yield f"{key}: {params.networks[name].arch} has no normalisation layers, so it has no effect"


def check_batch_norms(params: Params) -> None:
    """Raise ParamsError (exit code 2) if every batch gives a process one image, too few for a network's batch norm.

    Whether only the last batch does so is checked by the training, which knows how many images there are.
    """
    dataset, processes = params.dataset, params.recipe.processes
    shared = f" for {processes} processes" if processes else ""
    for row in params.seeded_rows:
        size = params.recipe_of(row).batch_size
        if size // (processes or 1) > 1:
            continue
        network, side = build_network(params.architecture(row.network)), params.training_size(row)
        try:
            with torch.no_grad():
                network(torch.empty(1, dataset.channels, side, side, device="meta"))
        except ValueError:
            few = f"{size}{shared}, too few for the batch norm of {row.network}"
            raise ParamsError(f"{params.recipe_key(row, 'batch_size')}: {few}; choose another") from None


def _mistakes(architecture: Architecture, size: int, learns: bool) -> Iterator[str]:
    try:
        network = build_network(architecture)
    except ParamsError as error:
        yield str(error)
        return
    except IMPOSSIBLE as error:
        yield f"cannot be built: {first_line(error)}"
        return
    points = attention_layers_of(architecture)
    paths = {path for path, _ in network.named_modules() if path}
    if (conv := architecture.get("conv", "S")) != "S" and _substitutes_nothing(architecture):
        why = f'`moonshine describe --arch {architecture["arch"]} --conv "{conv}"` shows why'
        yield f"conv: {conv} replaces no convolution; leave it out ({why})"
    unknown = [point for point in points if point not in paths]
    for point in unknown:
        yield f'points: {architecture["arch"]} has no module "{point}"{suggest_path(point, paths)}'
    if not unknown:
        yield from _refusal(network, points, architecture["in_channels"], size, learns)


def _substitutes_nothing(architecture: Architecture) -> bool:
    return all(reasons_to_keep(build_network({**architecture, "conv": "S"})).values())


def _refusal(network: nn.Module, points: tuple[str, ...], channels: int, size: int, learns: bool) -> Iterator[str]:
    given: dict[str, tuple[torch.Tensor, int]] = {}

    def note(point: str, module: nn.Module, inputs: object, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            given[point] = output, output._version

    for point in points:
        network.get_submodule(point).register_forward_hook(partial(note, point))
    try:
        with torch.no_grad():
            network(torch.empty(2, channels, size, size, device="meta"))
    except IMPOSSIBLE as error:
        yield f"cannot take images of {channels} x {size} x {size}: {first_line(error)}"
        return
    for point in points:
        features, version = given.get(point, (None, 0))
        if features is None:
            yield f"points: {point} gives no tensor"
        elif features.dim() != 4:
            yield f"points: {point} gives no maps of (channels, height, width), but {tuple(features.shape[1:])}"
        elif learns and features._version != version:  # a student's backward pass needs them as they were
            yield (
                f"points: {point} gives maps that the network overwrites in place, so that no student can learn them; "
                "name a module after it"
            )
