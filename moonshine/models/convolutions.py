"""The factory of cheap convolutions, and their substitution into a network.

Definitions: Crowley, Gray, Storkey, "Moonshine: Distilling with Cheap Convolutions" (arXiv 1711.02613), section 3.
Each substitute maps i channels to o; the stride sits on the spatial (k x k) convolution, and BN -> ReLU comes between
the convolutions of a substitute, not after the last. There are no biases except in one case: if the replaced
convolution had a bias (no batch norm follows it), the substitute's last convolution has one.
"""

from torch import nn

from moonshine.models.conv_spec import ConvSpec, parse_conv


def cheap_convolution(spec: ConvSpec, inputs: int, outputs: int, stride: int, bias: bool = False) -> nn.Module:
    """The substitute for a 3x3 convolution from `inputs` to `outputs` channels; same shapes in and out.

    With m = outputs // b and g groups:

        S        3x3 (i -> o)
        S-2x2    2x2 with dilation 2 (i -> o)
        G(g)     3x3 (i -> i, g groups) -> 1x1 (i -> o)
        B(b)     1x1 (i -> m) -> 3x3 (m -> m) -> 1x1 (m -> o)
        BG(b,g)  1x1 (i -> m) -> 3x3 (m -> m, g groups) -> 1x1 (m -> o)

    ValueError if the groups don't divide the channels or the bottleneck has no channels.
    """
    kernel, dilation = (2, 2) if spec.dilated else (3, 1)
    if spec.bottleneck is None and spec.groups is None:
        return he_normal(nn.Conv2d(inputs, outputs, kernel, stride, 1, dilation, bias=bias))
    layers: dict[str, nn.Module] = {}
    width = inputs
    if spec.bottleneck is not None:
        width = spec.bottleneck_width(outputs)
        layers["reduce"] = nn.Conv2d(inputs, width, 1, bias=False)
        layers["reduce_bn"] = nn.BatchNorm2d(width)
        layers["reduce_relu"] = nn.ReLU(inplace=True)
    groups = spec.group_count(width)
    layers["spatial"] = nn.Conv2d(width, width, kernel, stride, 1, dilation, groups=groups, bias=False)
    layers["bn"] = nn.BatchNorm2d(width)
    layers["relu"] = nn.ReLU(inplace=True)
    layers["pointwise"] = nn.Conv2d(width, outputs, 1, bias=bias)
    substitute = nn.Sequential()
    for name, layer in layers.items():
        substitute.add_module(name, layer)
    return he_normal(substitute)


def he_normal(module: nn.Module) -> nn.Module:
    """Initialise the convolutions in `module` as ResNet's authors do: He et al. 2015, normal, fan-out."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def substitute(network: nn.Module, conv: str) -> list[str]:
    """Replace, in place, every 3x3 convolution that `reasons_to_keep` doesn't name; returns their paths.

    A substitute has new weights, with the device, dtype and mode of the layer it replaces. ValueError names the
    layer that cannot be built.
    """
    spec = parse_conv(conv)
    replaced = [path for path, reason in reasons_to_keep(network).items() if reason is None]
    for path in replaced:
        replace_convolution(network, path, spec)
    return replaced


def replace_convolution(network: nn.Module, path: str, spec: ConvSpec) -> None:
    """Replace, in place, the 3x3 convolution at `path` as `substitute` does. ValueError names it if that fails."""
    layer = network.get_submodule(path)
    assert isinstance(layer, nn.Conv2d)
    inputs, outputs, stride, bias = layer.in_channels, layer.out_channels, layer.stride[0], layer.bias is not None
    try:
        cheap = cheap_convolution(spec, inputs, outputs, stride, bias)
    except ValueError as error:
        raise ValueError(f"layer {path}: {error}") from None
    network.set_submodule(path, cheap.to(layer.weight.device, layer.weight.dtype).train(layer.training))


def is_replaceable(layer: object) -> bool:
    """Whether it is a convolution that `substitute` replaces, unless it is the network's first."""
    return isinstance(layer, nn.Conv2d) and _reason(layer) is None


def reasons_to_keep(network: nn.Module) -> dict[str, str | None]:
    """Path of each convolution -> why it stays as it is, or None if a cheap one replaces it."""
    convolutions = {path: layer for path, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    stem = next(iter(convolutions), None)
    return {path: "stem" if path == stem else _reason(layer) for path, layer in convolutions.items()}


def _reason(layer: nn.Conv2d) -> str | None:
    height, width = layer.kernel_size
    if (height, width) != (3, 3):
        return f"{height}x{width} kernel"
    if layer.groups > 1:
        return "depthwise already" if layer.groups == layer.in_channels else f"{layer.groups} groups already"
    if layer.dilation != (1, 1) or layer.padding != (1, 1) or layer.stride[0] != layer.stride[1]:
        return f"padding {layer.padding}, dilation {layer.dilation}, stride {layer.stride}"
    return None
