"""The factory of cheap convolutions, and their substitution into a network.

Definitions: Crowley, Gray, Storkey, "Moonshine: Distilling with Cheap Convolutions" (arXiv 1711.02613), section 3.
Each substitute maps i channels to o with kernel 3x3 and no bias; the stride sits on the k x k convolution, and
BN -> ReLU stands between the convolutions of a substitute, not after the last.
"""

from collections import OrderedDict

from torch import nn

from moonshine.models.conv_spec import ConvSpec, parse_conv


def cheap_convolution(spec: ConvSpec, inputs: int, outputs: int, stride: int) -> nn.Module:
    """The substitute of a 3x3 convolution from `inputs` to `outputs` channels.

    `S` is the 3x3 itself; `G(g)` a 3x3 of g groups (inputs -> inputs), then a 1x1 (inputs -> outputs); `G(N)` is the
    depthwise separable one. ValueError where the groups don't divide the channels.
    """
    if spec.is_standard:
        return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    groups = spec.group_count(inputs)
    return nn.Sequential(
        OrderedDict(
            spatial=nn.Conv2d(inputs, inputs, 3, stride, 1, groups=groups, bias=False),
            bn=nn.BatchNorm2d(inputs),
            relu=nn.ReLU(inplace=True),
            pointwise=nn.Conv2d(inputs, outputs, 1, bias=False),
        )
    )


def substitute(network: nn.Module, conv: str, within: tuple[str, ...]) -> list[str]:
    """Replace, in place, every plain 3x3 convolution below the submodules `within`; returns their paths.

    ValueError names the layer that cannot be built.
    """
    spec, replaced = parse_conv(conv), []
    for path, layer in list(network.named_modules()):
        if not path.startswith(tuple(f"{name}." for name in within)) or not _is_plain_3x3(layer):
            continue
        parent, _, name = path.rpartition(".")
        try:
            cheap = cheap_convolution(spec, layer.in_channels, layer.out_channels, layer.stride[0])
        except ValueError as error:
            raise ValueError(f"layer {path}: {error}") from None
        setattr(network.get_submodule(parent), name, cheap)
        replaced.append(path)
    return replaced


def _is_plain_3x3(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.groups == 1
