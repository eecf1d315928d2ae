"""Whether the networks of params.yaml can be built and run, before anything is trained."""

import difflib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from moonshine.errors import ParamsError
from moonshine.models.architecture import describe
from moonshine.models.attention_points import attention_points
from moonshine.models.features import FeatureTap
from moonshine.models.networks import build_network
from moonshine.params import Params
from moonshine.suggest import suggest


def check_networks(params: Params) -> None:
    """Build every network without weights and send the shape of an image through it.

    Raises ParamsError (exit code 2) with one line for each network that cannot be built, has no such attention point,
    or cannot take the images.
    """
    dataset = params.dataset
    mistakes: list[str] = []
    for name, network in params.networks.items():
        architecture = describe(network, dataset.classes, dataset.channels)
        mistakes += (f"networks.{name}: {mistake}" for mistake in _mistakes(architecture, dataset.size))
    if mistakes:
        raise ParamsError("\n".join(mistakes))


def _mistakes(architecture: dict[str, Any], size: int) -> Iterator[str]:
    try:
        network = build_network(architecture).eval()
    except ParamsError as error:
        yield str(error)
        return
    points = attention_points(architecture)
    paths = {path for path, _ in network.named_modules() if path}
    unknown = [point for point in points if point not in paths]
    for point in unknown:
        yield f'points: "{point}" is no module of {architecture["arch"]}{_nearest(point, paths)}'
    if not unknown:
        yield from _refusal(network, points, architecture["in_channels"], size)


def _refusal(network: nn.Module, points: tuple[str, ...], channels: int, size: int) -> Iterator[str]:
    tap = FeatureTap(network, points, lambda features: features)
    try:
        with torch.inference_mode():
            network(torch.empty(1, channels, size, size, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        yield f"cannot take images of {channels} x {size} x {size}: {reason}"
        return
    for point, features in zip(points, tap.take()):
        if features.dim() != 4:
            yield f"points: {point} gives no maps of (channels, height, width), but {tuple(features.shape[1:])}"


def _nearest(point: str, paths: set[str]) -> str:
    """The likely path; without one, the modules at the top, for all of them are too many."""
    close = difflib.get_close_matches(point, paths, n=1)
    return suggest(point, close or {path for path in paths if "." not in path})
