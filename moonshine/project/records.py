"""The five records that artefacts carry, as JSON: their fields, for the code that writes and reads them.

Only types: each record is checked where it is read, and nothing here affects a byte of a result.
"""

from typing import Any, NotRequired, TypedDict


class Architecture(TypedDict):
    """A network as plain values: all that `models.networks.build_network` needs."""

    arch: str
    classes: int
    in_channels: int
    conv: NotRequired[str]
    convs: NotRequired[list[str]]
    block: NotRequired[str]
    channels: NotRequired[list[int]]
    stem: NotRequired[str]
    points: NotRequired[list[str]]


class Normalisation(TypedDict):
    """Per channel, on the scale 0..1."""

    mean: list[float]
    std: list[float]


class SplitRecord(TypedDict):
    """One split in a manifest."""

    count: int
    bytes: int
    sha256: str
    oddities: NotRequired[list[dict[str, Any]]]
    """For JPEG images: what is odd about those that are readable nonetheless."""


class Manifest(TypedDict):
    """data/<dataset>/manifest.json."""

    format: int
    name: str
    classes: list[str]
    """Names by label."""
    encoding: str
    """`raw` for pixels, `jpeg` for JPEG files."""
    shape: list[int]
    """Channels, height and width of what networks see."""
    normalisation: Normalisation
    splits: dict[str, SplitRecord]
    origin: dict[str, Any]
    """What the source reports about itself: its name, hashes, how it was split."""
    evaluation: NotRequired[dict[str, int]]
    """For JPEG images: `resize`, the shorter side before the central crop."""
    exif_orientation: NotRequired[bool]
    """True if JPEG images were turned upright."""


class ModelDescription(TypedDict):
    """In the metadata of a model file: all that is needed to use it apart from its weights."""

    name: str
    architecture: Architecture
    input: list[int]
    """Channels, height and width."""
    preprocessing: dict[str, Any]
    """`resize` to (height, width) for small images; `shorter_side` and `crop` for JPEG images, and `exif_orientation`
    if they are turned upright first."""
    normalisation: Normalisation
    classes: list[str]


class RunRecord(TypedDict):
    """models/<experiment>/records/<row>/seed<k>.json: how a model was made; a fetched one has `url` and `bytes`."""

    row: str
    sha256: str
    """Of the model file or, if it was fetched, of the file it was made from."""
    identity: dict[str, Any]
    """All that determines its bytes (`runs.identity`)."""
    run: str
    finished: str
    seconds: float
    commit: str | None
    image: str | None
    packages: str | None
    machine: dict[str, str | None]
    trained_on: NotRequired[list[str]]
    """Processors that took the training's steps, in order."""
    adopted: NotRequired[dict[str, Any]]


class Spread(TypedDict):
    """Over seeds; `std` is the sample standard deviation, left out for a single value."""

    mean: float
    std: NotRequired[float]


class MeasuredSeed(TypedDict):
    """One model's errors, in per cent."""

    top1: float
    top5: float
    loss: float
    balanced_error: NotRequired[float]
    """The mean over classes of each class's top-1 error."""
    n: int
    model_sha256: str
    model_bytes: int


class MeasuredSplit(TypedDict):
    """The images used for the measurement."""

    name: str
    split: str
    sha256: str


class QuantisedNetwork(TypedDict):
    """The errors of one int8 network, and the file that it was made from."""

    top1: float
    top5: float
    loss: float
    n: int
    model_sha256: str
    """Of the float32 model."""
    int8_sha256: str
    int8_bytes: int


class Quantised(TypedDict):
    """Errors of the row's int8 networks of one kind; a fetched row has those of its network instead of `seeds`."""

    top1: Spread
    top5: Spread
    loss: Spread
    seeds: NotRequired[dict[str, QuantisedNetwork]]
    model_sha256: NotRequired[str]
    int8_sha256: NotRequired[str]
    int8_bytes: NotRequired[int]


class Int8Metrics(Quantised):
    """results/<experiment>/metrics/int8/<row>.json: weights with one scale per channel."""

    row: str
    dataset: MeasuredSplit
    calibration: MeasuredSplit
    settings: dict[str, Any]
    """`quantise` of params.yaml, without its rows."""
    n: int
    per_tensor: NotRequired[Quantised]
    """The same with one scale per tensor."""


class Metrics(TypedDict):
    """results/<experiment>/metrics/<row>.json; a fetched row has the model's hash and size instead of `seeds`."""

    row: str
    dataset: MeasuredSplit
    n: int
    parameters: int
    learnable: int
    macs: int
    activations: NotRequired[int]
    """Missing in metrics of earlier versions."""
    top1: Spread
    top5: Spread
    loss: Spread
    balanced_error: NotRequired[Spread]
    """Missing in metrics of earlier versions."""
    seeds: NotRequired[dict[str, MeasuredSeed]]
    model_sha256: NotRequired[str]
    model_bytes: NotRequired[int]
