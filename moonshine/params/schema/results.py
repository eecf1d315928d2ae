"""What the results page shows."""

from typing import Annotated, Literal

from pydantic import Field

from moonshine.params.schema.values import Line, Name, Section


class Published(Section):
    """A column of published values."""

    name: Line
    """Name of the column."""
    source: str
    """Where the values were published: inline Markdown."""
    values: dict[str, dict[Literal["top1", "top5"], float]]
    """Row -> its errors in per cent."""


class Table(Section):
    """One table of the results page."""

    name: Name
    """Name of the table's files."""
    title: Line
    """Heading of the table."""
    caption: str
    """A sentence that explains the table to an outsider: inline Markdown without HTML."""
    rows: Annotated[list[str], Field(min_length=1)]
    """Rows, in order."""
    columns: Annotated[
        list[
            Literal[
                "top1",
                "top5",
                "balanced_error",
                "agreement",
                "kl",
                "ece",
                "parameters",
                "learnable",
                "macs",
                "activations",
                "size",
                "int8_top1",
                "int8_top5",
                "int8_size",
                "latency",
                "speedup",
                "int8_latency",
            ]
        ],
        Field(min_length=1),
    ]
    """Columns, in order. `top1` and `top5` are errors in per cent; `balanced_error` is the mean of the top-1 errors of
    all classes; `agreement` is the share of images that get the teacher's class, `kl` the divergence from the teacher's
    probabilities, and `ece` the expected calibration error; `parameters` counts batch norm's running statistics,
    `learnable` does not; `macs` are multiply-accumulates for one image and `activations` the elements of the outputs of
    the same layers; `size` is that of the model file; `int8_top1`, `int8_top5` and `int8_size` are the same of the
    networks in int8 ([`quantise`](#quantise)). `latency` and `int8_latency` are in milliseconds, and `speedup` is the
    teacher's latency divided by the row's, as [`moonshine measure`](latency.md) has measured them: a column per
    machine."""
    compare: str | None = None
    """Row of the experiment that errors are compared with. If left out, distilled networks are compared with the same
    network trained on the labels alone."""
    published: list[Published] = []
    """Columns of published values, next to the measured ones."""
    notes: list[str] = []
    """Paragraphs below the table, each inline Markdown without HTML, on what no program can know: what the experiment
    asks, what the teacher was given that its students were not, how settings were chosen, how long it took."""


class Quantise(Section):
    """How one row's networks are quantised to int8."""

    images: Annotated[int, Field(ge=1, lt=2**31)]
    """Training images that the ranges of activations are taken from. If left out, 256."""
    per_tensor: bool
    """Also measure the networks with one scale per weight tensor instead of one per output channel, for comparison. If
    left out, `false`."""
    reduce_range: bool
    """Weights of 7 bits instead of 8, for processors without VNNI. If left out, `false`."""


class AttentionMaps(Section):
    """The figure of where the teacher and two students look. The index of results shows the same students."""

    scratch: str
    """Model of a student trained without a teacher, named as `teacher` is: one of `train` or `fetch`. If left out, the
    network of `distilled`, or the teacher if that network was only distilled."""
    distilled: str
    """Model of a distilled student, usually the same network. It may be one of `train` or `fetch` if nothing is
    distilled. If left out, the first student that is in `train` or `fetch` too, preferably one with cheap convolutions
    that learned by attention transfer."""
    images: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=12)]
    """Validation images to draw, by position in the prepared data, counted from 0. `[]` draws none, for example because
    they may not be published; the distances are measured all the same. If left out, `[]` for licensed data, otherwise
    a few."""
