"""Networks built from their descriptions."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import conv2d

from moonshine.errors import ParamsError
from moonshine.models.conv_spec import parse_conv
from moonshine.models.convolutions import substitute
from moonshine.models.names import wide_resnet_shape
from moonshine.models.residual_blocks import substitute_blocks
from moonshine.models.torchvision_networks import torchvision_network
from moonshine.models.wide_resnet import WideResNet
from moonshine.project.records import Architecture

CONVOLUTIONS_OF_BLOCK = {"basic": 2, "single": 1}


def build_network(architecture: Architecture) -> nn.Module:
    """The network of a description, on the meta device: without weights, almost instantly.

    Give it weights by loading a state dict with assign=True. Raises ParamsError (exit code 2) if the convolution
    cannot be built for these channels.
    """
    # RegNets compute their widths with tensors, which needs a device with memory
    with torch.device("cpu" if architecture["arch"].startswith("regnet") else "meta"):
        return _assemble(architecture).to("meta")


def initialise(architecture: Architecture, seed: int) -> nn.Module:
    """The network with random weights on the CPU: its authors' initialisation, He normal for convolutions made here.

    A pure function of the architecture and the seed; leaves PyTorch's global random state alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _assemble(architecture)


def _assemble(architecture: Architecture) -> nn.Module:
    given: dict[str, Any] = {key: value for key, value in architecture.items() if key != "points"}
    conv, convs, block = given.pop("conv", "S"), given.pop("convs", None), given.pop("block", None)
    if shape := wide_resnet_shape(given.pop("arch")):
        convolutions = CONVOLUTIONS_OF_BLOCK[block or usual_block(conv)]
        network: nn.Module = WideResNet(*shape, convolutions=convolutions, **given)
    else:
        network = torchvision_network(architecture["arch"], **given)
    try:
        if convs:
            substitute_blocks(network, convs)
        elif conv != "S":
            substitute(network, conv)
    except ValueError as error:
        raise ParamsError(f"{architecture['arch']} with {'convs' if convs else conv}: {error}") from None
    return network


def usual_block(conv: str) -> str:
    """The wide ResNet block in which the paper uses a convolution: `single` for bottlenecks, else `basic`."""
    return "single" if parse_conv(conv).bottleneck else "basic"


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on its device in the memory layout that is fastest there, channels last."""
    if device.type == "cpu":
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and _is_narrow_shortcut(layer):
                layer.__class__ = GatheringConv2d
    return network.to(device).to(memory_format=torch.channels_last)


class GatheringConv2d(nn.Conv2d):
    """A strided 1x1 convolution that first gathers the pixels it reads.

    oneDNN (in torch 2.14) does so itself if the stride divides the map's sides, but its backward pass writes past its
    buffers if the map has fewer channels than it moves at once. For batches like those in experiments/ the results are
    bit-identical; if oneDNN splits a small batch differently, the last bit can differ.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows, columns = self.stride
        if input.shape[-2] % rows or input.shape[-1] % columns:
            return super().forward(input)
        return conv2d(input[..., ::rows, ::columns], self.weight, self.bias, groups=self.groups)


def _is_narrow_shortcut(layer: nn.Conv2d) -> bool:
    """Whether GatheringConv2d is needed: AVX-512 moves 16 channels at once, AVX2 moves 8."""
    return layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.padding == (0, 0) and layer.in_channels < 16


def compile_network(network: nn.Module) -> Any:
    """The network's forward pass, compiled.

    Kernels are compiled per batch size: ones for any size depend on which size came first, which resuming changes.
    They are also per network: one must not run another's, which give other features, or use up a shared limit.
    For a GPU, the compiler must not choose among kernels by timing them: another process could choose another.
    """
    if next(network.parameters()).is_cuda:
        from torch._inductor import config

        config.deterministic = True
    return torch.compile(network, dynamic=False, isolate_recompiles=True)  # type: ignore[call-overload]


def without_wrappers(network: nn.Module) -> nn.Module:
    """The network itself, from one that is compiled, distributed or both."""
    if isinstance(network, nn.parallel.DistributedDataParallel):
        return without_wrappers(network.module)
    compiled = network._modules.get("_orig_mod")  # set by torch.compile; importing its class takes a second
    return network if compiled is None else without_wrappers(compiled)
