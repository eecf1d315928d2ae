"""What an exported file says about itself: its metadata, and in words how to use it."""

from collections.abc import Mapping
from typing import Any

from moonshine.export.class_names import class_names
from moonshine.project.records import ModelDescription


def metadata_of(description: ModelDescription, source_sha256: str) -> dict[str, Any]:
    """The metadata of a published model's export: its whole description, and the names of its classes."""
    return {**description, "class_names": class_names(description["classes"]), "source_sha256": source_sha256}


def explanation(description: Mapping[str, Any]) -> str:
    """How to prepare the input of the exported network, and what its output is."""
    channels, height, width = description["input"]
    preprocessing = description["preprocessing"]
    resize = (
        f"resize the whole image to {height} x {width}"
        if "resize" in preprocessing
        else f"resize the shorter side to {preprocessing['shorter_side']}, take the central {height} x {width}"
    )
    turn = "turn upright by EXIF orientation, " if preprocessing.get("exif_orientation") else ""
    mean, std = description["normalisation"]["mean"], description["normalisation"]["std"]
    return (
        f"Input `images`: float32 (batch, {channels}, {height}, {width}), from {'RGB' if channels == 3 else 'grey'} "
        f"pixels: {turn}{resize} (bilinear, antialiased), divide by 255, subtract {mean}, divide by {std} "
        "(by channel). "
        f"Output `logits`: float32 (batch, {len(description['classes'])}), one for each of the metadata's classes."
    )
