"""The paper's spelling of cheap convolutions, parsed without importing torch (REFERENCE: arXiv 1711.02613, Table 1)."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ConvSpec:
    """One cheap convolution.

    A `groups` of (4, False) is 4 groups, one of (8, True) is 8 channels a group: G(4) and G(N/8).
    """

    spelling: str
    groups: tuple[int, bool] | None = None

    @property
    def is_standard(self) -> bool:
        """The full 3x3 convolution that the others replace."""
        return self.spelling == "S"

    def group_count(self, channels: int) -> int:
        """Number of groups of a grouped convolution over `channels` channels; ValueError where it does not divide."""
        assert self.groups is not None
        number, is_width = self.groups
        if channels % number:
            what = "groups of" if is_width else "groups in"
            raise ValueError(f"{self.spelling}: {channels} channels don't divide into {what} {number}")
        return channels // number if is_width else number


def parse_conv(spelling: str) -> ConvSpec:
    """Parse `S`, `G(4)`, `G(N)` or `G(N/8)`; ValueError says what is wrong with another spelling."""
    if spelling == "S":
        return ConvSpec(spelling)
    match = re.fullmatch(r"G\((?:(?P<count>[1-9]\d{0,4})|N(?:/(?P<width>[1-9]\d{0,4}))?)\)", spelling)
    if not match:
        raise ValueError(f'conv: "{spelling}" is no convolution (known: S, G(4), G(N), G(N/8) and the like)')
    if match["count"]:
        return ConvSpec(spelling, (int(match["count"]), False))
    return ConvSpec(spelling, (int(match["width"] or 1), True))
