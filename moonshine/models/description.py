"""Checks of a model file's description against what its users rely on."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moonshine.project.records import ModelDescription

LARGEST_SIDE = 8192
"""Most pixels per side of a network's input: a made-up size could take all memory."""

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
Size = Annotated[list[Side], Field(min_length=2, max_length=2)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Architecture(_Part):
    arch: str
    classes: int
    in_channels: Literal[1, 3]
    points: list[str] | None = None


class _Preprocessing(_Part):
    resize: Size | None = None
    shorter_side: Side | None = None
    crop: Size | None = None
    exif_orientation: bool | None = None


class _Normalisation(_Part):
    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]


class _Description(_Part):
    name: str
    architecture: _Architecture
    input: Annotated[list[Side], Field(min_length=3, max_length=3)]
    preprocessing: _Preprocessing
    normalisation: _Normalisation
    classes: Annotated[list[str], Field(min_length=1)]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "_Description":
        channels, *size = self.input
        jpeg_images = self.preprocessing.shorter_side is not None
        if self.architecture.classes != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes for a network of {self.architecture.classes}")
        if {self.architecture.in_channels, len(self.normalisation.mean), len(self.normalisation.std)} != {channels}:
            raise ValueError(f"network and normalisation are not both for {channels} channels")
        if (self.preprocessing.crop if jpeg_images else self.preprocessing.resize) != size:
            raise ValueError(f"preprocessing does not give images of {size[0]} x {size[1]}")
        if jpeg_images and size[0] != size[1]:
            raise ValueError("JPEG images are squares")
        return self


def wrong_in_description(description: ModelDescription) -> str | None:
    """The first error in a description (from `model_description`), or None."""
    try:
        _Description.model_validate(description)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")
    return None
