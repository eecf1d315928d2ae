"""The types of single values in params.yaml, and the base of its sections."""

import re
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from moonshine.params.urls import check_url

# Names become folders, DVC parameters and Snakemake wildcards: no dots, slashes or blanks.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Epoch = Count
Share = Annotated[float, Field(gt=0, le=1)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Url = Annotated[str, AfterValidator(check_url)]
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Section(BaseModel):
    """Unknown keys are errors, and so are values of the wrong type, such as "1e-3" for 0.001 or true for 1."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


NOT_OF_XML = re.compile(r"[^\t\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no SVG file may have."""


def _one_line(text: str) -> str:
    if not text.strip() or text.splitlines() != [text]:
        raise ValueError(f"must be one line that is not blank, found {text!r}")
    if character := NOT_OF_XML.search(text):
        raise ValueError(f"must not contain the control character {character[0]!r}, found {text!r}")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""A cell of a table, or a heading."""


def _path(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"must be a path without control characters, found {text!r}")
    return text


FilePath = Annotated[str, AfterValidator(_path)]


def _below(text: str) -> str:
    path = PurePath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"must be the path of a file below the folder of images, found {text!r}")
    return text


PathBelow = Annotated[FilePath, AfterValidator(_below)]
UrlOrPath = Annotated[FilePath, AfterValidator(lambda text: check_url(text) if ":" in text else text)]
