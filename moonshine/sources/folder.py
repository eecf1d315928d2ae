"""Your own images, in machine.raw_data.folder, in one of the layouts of moonshine/preparation/layouts.py.

The manifest has the number of images in each split and the sha256 of what `sha256sum` prints for them in order, so
that two states of the folder can be told apart, and how the validation split was made if the folder has none.
"""

from moonshine.params.schema import Params
from moonshine.preparation.jpeg_store import JpegSource
from moonshine.preparation.layouts import SPLIT_SEED
from moonshine.preparation.raw_images import RawImages


def open_source(params: Params, raw: RawImages) -> JpegSource:
    """The images, listed; they are read only while they are written."""
    layout, labels = raw.layout, params.dataset.labels
    raw.origin |= {"source": "folder"}
    if layout.held_out is not None:
        raw.origin |= {"validation_share": layout.held_out, "split": f"stratified, seed {SPLIT_SEED}"}
    if labels is not None:
        raw.origin["labels"] = labels
    return JpegSource(
        classes=layout.classes,
        splits={split: raw.split(split) for split in layout.images},
        counts={split: layout.counts(split) for split in layout.images},
        bytes=layout.bytes,
        origin=raw.origin,
        check=raw.require_no_leak,
    )
