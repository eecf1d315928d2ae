"""The frozen network that students learn from."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from moonshine.data.normalisation import Renormalisation
from moonshine.distillation.attention_transfer import attention_map
from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.features import FeatureTap
from moonshine.models.model_file import load_model
from moonshine.models.networks import compile_network, place
from moonshine.project.records import ModelDescription, Normalisation


@dataclass(frozen=True)
class TeacherOutputs:
    """The teacher's outputs for one batch."""

    logits: torch.Tensor
    """float32, shape (batch, classes)."""
    maps: list[torch.Tensor]
    """Attention map of each group, float32, shape (batch, height, width)."""


class Teacher:
    """A network in eval mode, without gradient, and the attention of its layers."""

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        precision: torch.dtype | None = None,
        compiled: bool = False,
        renormalise: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        """Freezes the given network.

        `precision` is that of autocast; None leaves it to the caller. `renormalise` makes what the network must see
        from the images that it is given; None if that is the same.
        """
        self.network = network.requires_grad_(False).eval()
        self._tap = FeatureTap(network, layers, attention_map)
        self._forward = compile_network(network) if compiled else network
        self._freezing: AbstractContextManager[None] = _freezing() if compiled else nullcontext()
        self._precision, self._renormalise = precision, renormalise

    @classmethod
    def load(
        cls,
        path: Path,
        name: str,
        device: torch.device,
        precision: torch.dtype,
        compiled: bool = False,
        images: Normalisation | None = None,
    ) -> tuple["Teacher", ModelDescription]:
        """A published model, with batch norms folded into its convolutions, and its description.

        `images` is the normalisation of the images that it will be given; its own if left out.
        """
        network, description = load_model(path, name)
        layers = attention_layers_of(description["architecture"])
        fold_batch_norms(network, keep=layers)
        cast_weights(network, precision)
        own = description["normalisation"]
        renormalise = Renormalisation(images, own, device) if images is not None and images != own else None
        return cls(place(network, device), layers, precision, compiled, renormalise), description

    def __call__(self, images: torch.Tensor) -> TeacherOutputs:
        with torch.inference_mode(), self._autocast(images.device), self._freezing:
            if self._renormalise:
                images = self._renormalise(images)
            logits = self._forward(images)
            if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
                raise TypeError(f"the teacher returned {described(logits)}, not logits of shape (batch, classes)")
            logits = logits.float()
            maps = self._tap.take()
        # copied outside inference mode, so that the students' backward passes may keep them
        return TeacherOutputs(logits.clone(), [map_.clone() for map_ in maps])

    def _autocast(self, device: torch.device) -> AbstractContextManager[None]:
        if self._precision is None:
            return nullcontext()
        return torch.autocast(device.type, self._precision, enabled=self._precision != torch.float32)


def described(output: object) -> str:
    """What a network returned instead of logits."""
    return f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__


def _freezing() -> AbstractContextManager[None]:
    """Inside it, the compiler treats weights as constants, lays them out once and fuses convolutions with what follows.

    As an option of torch.compile it takes effect too late (torch 2.14): the weights are arguments by then.
    """
    from torch._inductor import config

    return config.patch(freezing=True)


def fold_batch_norms(network: nn.Module, keep: Collection[str] = ()) -> None:
    """Fold, in place, each batch norm into the convolution before it, if only the batch norm uses its output.

    Outputs change only by rounding, including those of the modules at the paths `keep`. The network must be in
    eval mode.
    """
    modules = dict(network.named_modules())
    for node in fx.Tracer().trace(network).nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        source = node.args[0]
        if source.op != "call_module" or len(source.users) > 1:
            continue
        if any(_within(source.target, path) and not _within(node.target, path) for path in keep):
            continue
        if isinstance(modules[source.target], nn.Conv2d):
            network.set_submodule(source.target, fuse_conv_bn_eval(modules[source.target], modules[node.target]))
            network.set_submodule(node.target, nn.Identity())


def _within(module: str, path: str) -> bool:
    """Whether the module is the one at the path or a part of it, such as the last convolution of a cheap one."""
    return f"{module}.".startswith(f"{path}.")


def cast_weights(network: nn.Module, precision: torch.dtype) -> None:
    """Cast, in place and once, the weights that autocast would cast in each forward pass, to the same bytes."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.to(precision)
