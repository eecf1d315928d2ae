"""Which architectures exist, without importing torch, so that a mistyped one is refused at once.

They are torchvision's classification networks under torchvision's names, and wide ResNets as `wrn-<depth>-<width>`.
"""

import re

from moonshine.runtime.suggest import suggest

_OF_TORCHVISION = """
alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169 densenet201
efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf
regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf
regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18
resnet34 resnet50 resnext101_32x8d resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0
shufflenet_v2_x1_5 shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t
vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32
wide_resnet101_2 wide_resnet50_2
"""
TORCHVISION = tuple(_OF_TORCHVISION.split())


def check_architecture(name: str) -> None:
    """Raise ValueError with a suggestion if `name` is not an architecture that can be built."""
    if name in TORCHVISION:
        return
    shape = wide_resnet_shape(name)
    if shape is None:
        raise ValueError(f'arch: unknown architecture "{name}"{suggest(name, (*TORCHVISION, "wrn-40-2"))}')
    depth, _ = shape
    if depth < 10 or (depth - 4) % 6:
        lower = max(depth - (depth - 4) % 6, 10)
        raise ValueError(
            f'arch: "{name}": a wide ResNet has three groups of (depth - 4) / 6 blocks, so its depth is 10, 16, 22 and '
            f'so on (did you mean "wrn-{lower}-{shape[1]}"?)'
        )


def wide_resnet_shape(name: str) -> tuple[int, int] | None:
    """(depth, width) of `wrn-<depth>-<width>`, or None for another name."""
    match = re.fullmatch(r"wrn-([1-9]\d{0,3})-([1-9]\d{0,2})", name)
    return (int(match[1]), int(match[2])) if match else None


def is_torchvision_resnet(name: str) -> bool:
    """Whether torchvision's ResNet class builds it: four groups of blocks, a stem of 7x7 convolution and pooling."""
    return name.startswith(("resnet", "resnext", "wide_resnet"))


def residual_block_count(name: str) -> int | None:
    """Number of residual blocks of two 3x3 convolutions, or None for an architecture made of others."""
    if shape := wide_resnet_shape(name):
        return (shape[0] - 4) // 6 * 3
    return {"resnet18": 8, "resnet34": 16}.get(name)
