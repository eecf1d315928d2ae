"""The paper's spelling of cheap convolutions, parsed without importing torch (arXiv 1711.02613, section 3)."""

import re
from dataclasses import dataclass

from moonshine.runtime.suggest import suggest

KNOWN = ("S", "S-2x2", "G(4)", "G(N)", "G(N/8)", "B(2)", "BG(2,4)", "BG(2,M)", "BG(2,M/8)")
_NUMBER = r"[1-9]\d{0,4}"
_GRAMMAR = re.compile(
    rf"S(?P<dilated>-2x2)?"
    rf"|G\((?:(?P<groups>{_NUMBER})|N(?:/(?P<width>{_NUMBER}))?)\)"
    rf"|B\((?P<plain>{_NUMBER})\)"
    rf"|BG\((?P<bottleneck>{_NUMBER}),(?:(?P<inner_groups>{_NUMBER})|M(?:/(?P<inner_width>{_NUMBER}))?)\)"
)


@dataclass(frozen=True)
class ConvSpec:
    """One cheap convolution.

    `bottleneck` is b in B(b) and BG(b,...). `groups` is (4, False) for 4 groups, as in G(4), and (8, True) for 8
    channels per group, as in G(N/8). `dilated` is the 2x2 kernel with dilation 2.
    """

    spelling: str
    dilated: bool = False
    bottleneck: int | None = None
    groups: tuple[int, bool] | None = None

    @property
    def is_standard(self) -> bool:
        """The full 3x3 convolution that the others replace."""
        return self.spelling == "S"

    def bottleneck_width(self, outputs: int) -> int:
        """m = outputs // b, the channels of the spatial convolution in B and BG; ValueError if that is below 1."""
        assert self.bottleneck is not None
        width = outputs // self.bottleneck
        if width < 1:
            raise ValueError(f"{self.spelling}: {outputs} channels leave no bottleneck of 1/{self.bottleneck} of them")
        return width

    def group_count(self, channels: int) -> int:
        """Groups of the spatial convolution over `channels` channels; ValueError if they don't divide evenly."""
        if self.groups is None:
            return 1
        number, is_width = self.groups
        if channels % number:
            groups = f"groups of {number}" if is_width else f"{number} groups"
            raise ValueError(f"{self.spelling}: {channels} channels cannot be split into {groups}")
        return channels // number if is_width else number


def parse_conv(spelling: str, key: str = "conv") -> ConvSpec:
    """Parse `S`, `S-2x2`, `G(4)`, `G(N)`, `G(N/8)`, `B(2)`, `BG(2,4)`, `BG(2,M)`, `BG(2,M/8)` and the like.

    For any other spelling, ValueError names the key that has it and suggests the likely one.
    """
    match = _GRAMMAR.fullmatch(spelling)
    if not match:
        raise ValueError(f'{key}: unknown convolution "{spelling}"{_likely(spelling)}')
    bottleneck = match["plain"] or match["bottleneck"]
    return ConvSpec(
        spelling,
        dilated=match["dilated"] is not None,
        bottleneck=int(bottleneck) if bottleneck else None,
        groups=_groups(match),
    )


def _groups(match: re.Match[str]) -> tuple[int, bool] | None:
    if count := match["groups"] or match["inner_groups"]:
        return int(count), False
    if width := match["width"] or match["inner_width"]:
        return int(width), True
    return (1, True) if "N" in match.string or "M" in match.string else None


def _likely(spelling: str) -> str:
    """A suggestion: the spelling with corrected letters and brackets if that is valid, else the nearest known one."""
    tidy = spelling.replace(" ", "").upper().translate(str.maketrans("[]{}X", "()()x"))
    return f' (did you mean "{tidy}"?)' if _GRAMMAR.fullmatch(tidy) else suggest(tidy, KNOWN)
