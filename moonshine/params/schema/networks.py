"""Architectures, and the files that their weights begin with or are published in."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from moonshine.models.conv_spec import parse_conv
from moonshine.models.names import check_architecture, is_torchvision_resnet, residual_block_count, wide_resnet_shape
from moonshine.params.schema.recipe import OwnRecipe
from moonshine.params.schema.values import Count, Name, Section, Sha256, UrlOrPath


class PinnedFile(Section):
    """A file with weights, such as a PyTorch checkpoint or a safetensors file."""

    url: UrlOrPath
    """Where the file is: an https address, or a path on this machine."""
    sha256: Sha256
    """Checksum of the file. If left out for a path, it is computed when the experiment becomes the current one; for an
    address, it is required."""


TEACHER = "teacher"
"""The word for `init` that stands for the weights of the experiment's teacher."""


def _kind_of_init(value: Any) -> str:
    return "init[word]" if isinstance(value, str) else "init[file]"


Init = Annotated[
    Annotated[Literal["teacher"], Tag("init[word]")] | Annotated[PinnedFile, Tag("init[file]")],
    Discriminator(_kind_of_init),
]


class Network(Section):
    """One architecture. What is left out is as the architecture's authors chose it."""

    arch: str
    """A classification network of torchvision by its torchvision name (`resnet34`, `vgg16_bn`, `mobilenet_v2`), or a
    wide ResNet, `wrn-<depth>-<width>`."""
    conv: str | None = None
    """The cheap convolution that replaces each 3x3 convolution after the stem, spelled as in the paper; `S`, which
    replaces nothing, if left out."""
    convs: list[str] | None = None
    """Instead of `conv`, a convolution for each residual block, from the image to the classifier: 8 for `resnet18`, 16
    for `resnet34`, (depth - 4) / 2 for wide ResNets. S and G stand in blocks of two convolutions, B and BG in blocks of
    one ([BlockSwap](networks.md#a-convolution-for-each-block)). Not for other architectures."""
    found_by: Name | None = None
    """The search of `search` that has found `convs`. Nothing is trained differently; `moonshine check` compares the
    list with what the search has found, and `moonshine lineage` traces it."""
    candidate: Annotated[int, Field(ge=0)] | None = None
    """With `found_by`: `convs` is this candidate of the search, counted from 0, instead of the best one."""
    block: Literal["basic", "single"] | None = None
    """Only for wide ResNets: blocks of two convolutions (`basic`) or of one (`single`). If left out, as in the paper:
    `single` for B and BG, otherwise `basic`."""
    channels: Annotated[list[Count], Field(min_length=4, max_length=4)] | None = None
    """Only for torchvision's ResNets: width of `layer1` to `layer4`. The stem has the width of `layer1`."""
    stem: Literal["3x3"] | None = None
    """Only for torchvision's ResNets: one 3x3 convolution of stride 1 without pooling, for small images. If left out,
    torchvision's own stem."""
    points: Annotated[list[str], Field(min_length=1)] | None = None
    """Modules whose outputs' attention is compared, as paths such as `features.13`. If left out, the ends of the stages
    of ResNets (all kinds), VGG, DenseNet, RegNet, ShuffleNet, ConvNeXt and MobileNetV2; other families need `points`
    for attention transfer."""
    recipe: OwnRecipe | None = None
    """Keys of `recipe` that are different for this network, in all its rows."""
    init: Init | None = None
    """Where the weights begin before training; random if left out. A file must have all tensors but the classifier
    head, which begins as without `init`. `teacher` takes all tensors that have the same name and shape in the teacher's
    model; a network with it is trained without the teacher's loss by `train_from_teacher`, not by `train`."""

    @model_validator(mode="after")
    def _names_are_known(self) -> "Network":
        check_architecture(self.arch)
        if self.conv is not None:
            parse_conv(self.conv)
        for index, conv in enumerate(self.convs or ()):
            parse_conv(conv, f"convs.{index}")
        return self

    @model_validator(mode="after")
    def _settings_belong_to_the_architecture(self) -> "Network":
        if self.block is not None and not wide_resnet_shape(self.arch):
            raise ValueError(f"block: only valid for wide ResNets such as wrn-40-2, not for {self.arch}")
        for key in ("channels", "stem"):
            if getattr(self, key) is not None and not is_torchvision_resnet(self.arch):
                raise ValueError(f"{key}: only valid for torchvision's ResNets, not for {self.arch}")
        if self.points and len(set(self.points)) != len(self.points):
            raise ValueError("points: duplicate entry")
        return self

    @model_validator(mode="after")
    def _each_block_has_one_convolution(self) -> "Network":
        if self.convs is None:
            if self.found_by is not None:
                raise ValueError("found_by: is about convs, which are missing")
            if self.candidate is not None:
                raise ValueError("candidate: is about convs, which are missing")
            return self
        if self.candidate is not None and self.found_by is None:
            raise ValueError("candidate: of which search? found_by is missing")
        if (blocks := residual_block_count(self.arch)) is None:
            raise ValueError(f"convs: only valid for resnet18, resnet34 and wide ResNets, not for {self.arch}")
        if len(self.convs) != blocks:
            raise ValueError(f"convs: {len(self.convs)} given, but {self.arch} has {blocks} residual blocks")
        for key in ("conv", "block"):
            if getattr(self, key) is not None:
                raise ValueError(f"{key}: not with convs, which decides it for each block; leave out either")
        return self


class Normalisation(Section):
    """How images are normalised for a network: (pixel / 255 - mean) / std, for each channel."""

    mean: list[Annotated[float, Field(ge=0, le=1)]]
    """Mean of each channel, on a scale of 0 to 1."""
    std: list[Annotated[float, Field(gt=0, le=1)]]
    """Standard deviation of each channel, on the same scale."""


class Checkpoint(PinnedFile):
    """A published network: a PyTorch checkpoint or a safetensors file with its state dict."""

    normalisation: Normalisation | None = None
    """How the network was trained to see images. The data set's normalisation if left out."""
    classes: Count | None = None
    """Number of classes of the network, which are not those of the data set. Required in `fetch_teacher`, not allowed
    in `fetch`."""
