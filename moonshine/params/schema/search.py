"""Searches for the convolutions of a network's residual blocks."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moonshine.models.conv_spec import parse_conv
from moonshine.models.names import check_architecture, is_torchvision_resnet, residual_block_count
from moonshine.params.schema.values import Count, Name, Section

BUDGETS = ("parameters", "macs", "activations", "latency")


class Search(Section):
    """BlockSwap: networks within a budget are drawn at random, and the most promising one is found without training.

    The architecture is named here and not taken from `networks`, because DVC must see that the search depends on it.
    """

    arch: str
    """Architecture whose residual blocks get other convolutions, usually the teacher's: `resnet18`, `resnet34` or a
    wide ResNet, `wrn-<depth>-<width>`."""
    channels: Annotated[list[Count], Field(min_length=4, max_length=4)] | None = None
    """As in `networks`."""
    stem: Literal["3x3"] | None = None
    """As in `networks`."""
    parameters: Count | None = None
    """Budget in learnable parameters, as the column `learnable` of tables and the paper count them: without batch
    norm's running statistics. Exactly one of `parameters`, `macs`, `activations` and `latency` is required."""
    macs: Count | None = None
    """Budget in multiply-accumulates for one image."""
    activations: Count | None = None
    """Budget in elements of the outputs of convolutions and classifier for one image."""
    latency: Annotated[float, Field(gt=0)] | None = None
    """Budget in milliseconds for one batch on `machine`, predicted from what each block takes there."""
    machine: Name | None = None
    """With `latency`: the name under which `moonshine measure --blocks` has written the latencies of the blocks."""
    tolerance: Annotated[float, Field(gt=0, lt=1)]
    """A network is within the budget if it differs from it by less than this share of it. If left out, 0.025."""
    pool: Annotated[list[str], Field(min_length=2)] | None = None
    """Convolutions, spelled as in `networks`, from which each block draws one, all with the same probability. If left
    out, the 21 of the paper: S, B(2), B(4), G(g) for g = 2, 4, 8, 16, N/16, N/8, N/4, N/2 and N, and BG(2,g) for
    g = 2, 4, 8, 16, M/16, M/8, M/4, M/2 and M."""
    candidates: Count
    """Number of networks within the budget. If left out, 1000."""
    criterion: Literal["fisher", "random", "parameters"]
    """Which candidate is found: `fisher`, that with the largest Fisher potential, as in BlockSwap. Controls are
    `random`, the first one, and `parameters`, that with the most parameters. If left out, `fisher`."""
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    """Seed of the candidates, of their weights and of the batch. If left out, 0."""
    batch: Annotated[int, Field(ge=2, lt=2**31)]
    """Number of training images, augmented as in `recipe`, on which potentials are computed. If left out, 128."""

    @property
    def budget(self) -> tuple[str, float]:
        """Its kind and its amount, of latency in milliseconds."""
        return next((kind, amount) for kind in BUDGETS if (amount := getattr(self, kind)) is not None)

    @model_validator(mode="after")
    def _architecture_has_such_blocks(self) -> "Search":
        check_architecture(self.arch)
        if residual_block_count(self.arch) is None:
            raise ValueError(f"arch: must be resnet18, resnet34 or a wide ResNet, found {self.arch}")
        for key in ("channels", "stem"):
            if getattr(self, key) is not None and not is_torchvision_resnet(self.arch):
                raise ValueError(f"{key}: only valid for torchvision's ResNets, not for {self.arch}")
        return self

    @model_validator(mode="after")
    def _has_one_budget(self) -> "Search":
        given = [kind for kind in BUDGETS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(BUDGETS)}, found {', '.join(given) or 'none'}")
        if self.latency is not None and self.machine is None:
            raise ValueError("machine: missing, on which latency is predicted; name a file of block-latency/")
        if self.machine is not None and self.latency is None:
            raise ValueError("machine: only valid with latency")
        return self

    @model_validator(mode="after")
    def _pool_is_known(self) -> "Search":
        pool = self.pool or []
        for index, conv in enumerate(pool):
            parse_conv(conv, f"pool.{index}")
            if conv in pool[:index]:
                raise ValueError(f"pool: duplicate entry {conv}")
        return self
