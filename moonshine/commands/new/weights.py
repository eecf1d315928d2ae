"""Published weights that a teacher begins with: found, downloaded once, pinned, and tried on the network."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from moonshine.errors import DataError, ParamsError
from moonshine.inputs.download import download
from moonshine.models.architecture import architecture_of
from moonshine.models.names import TORCHVISION
from moonshine.models.weight_file import all_but_the_head, read_state
from moonshine.params import Network
from moonshine.params.schema import Machine
from moonshine.params.urls import check_url
from moonshine.runtime.files import sha256

TORCHVISIONS_OWN = "DEFAULT"
"""Stands for the weights that torchvision publishes for the architecture, by its own name for the best of them."""


@dataclass(frozen=True)
class Weights:
    """A file of weights as params.yaml pins it."""

    url: str
    """An https address, or an absolute path."""
    sha256: str
    path: Path
    """Where it is on this machine."""

    @property
    def pin(self) -> dict[str, str]:
        return {"url": self.url, "sha256": self.sha256}

    @property
    def are_for_grey(self) -> bool:
        """Whether the network that they are of takes images of one channel: its first convolution does."""
        first = next((tensor for tensor in read_state(self.path).values() if tensor.dim() == 4), None)
        return first is not None and first.shape[1] == 1


def find_weights(wanted: str, arch: str) -> Weights:
    """The file that `wanted` means: TORCHVISIONS_OWN, an https address, or a path.

    A file from elsewhere is kept in downloads/ under the name that trainings look for. Raises ParamsError (exit code 2)
    for weights that cannot be found, and what `download` raises.
    """
    if wanted == TORCHVISIONS_OWN:
        url = _published_by_torchvision(arch)
        digest = re.search(r"-([0-9a-f]{8,})\.pth$", url)
        return _downloaded(url, digest[1] if digest else "")
    if "://" in wanted:
        try:
            return _downloaded(check_url(wanted), "")
        except ValueError as error:
            raise ParamsError(f"--weights: {error}") from None
    path = Path(wanted).expanduser().absolute()
    if not path.is_file():
        raise ParamsError(f"--weights {wanted}: no such file")
    return Weights(str(path), sha256(path), path)


def require_fit(weights: Weights, network: Mapping[str, Any], classes: int, channels: int) -> None:
    """Raise CheckpointError (exit code 8) unless the file has every tensor of the network but the classifier head's."""
    architecture = architecture_of(Network(**network), classes, channels)
    all_but_the_head(read_state(weights.path), architecture, weights.path)


def _published_by_torchvision(arch: str) -> str:
    from torchvision.models import get_model_weights

    if arch not in TORCHVISION:
        raise ParamsError(f"--weights {TORCHVISIONS_OWN}: torchvision publishes no weights for {arch}; name a file")
    weights: Any = get_model_weights(arch)
    return str(weights.DEFAULT.url)


def _downloaded(url: str, digest: str) -> Weights:
    """A file from elsewhere; `digest` is how its sha256 begins, if that is known."""
    folder, name, seconds = Path(Machine().downloads), Path(urlsplit(url).path).name[-200:], Machine().download_seconds
    if known := next(iter(folder.glob(f"{digest[:8]}*-{name}")), None) if digest else None:
        return Weights(url, sha256(known), known)
    path = folder / f"unpinned-{name}"
    download(url, path, _check_of(url, digest), seconds)
    found = sha256(path)
    pinned = folder / f"{found[:16]}-{name}"
    os.replace(path, pinned)
    return Weights(url, found, pinned)


def _check_of(url: str, digest: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        if not (found := sha256(path)).startswith(digest):
            raise DataError(f"{url}: has sha256 {found}, and its name says {digest}; try again")

    return check
