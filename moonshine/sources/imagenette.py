"""Imagenette (Howard 2019): ten easy classes of ImageNet, 9,469 + 3,925 JPEG images in its second version.

The archive has <name>/train/<wnid>/<image> and <name>/val/<wnid>/<image>; labels number the wnids alphabetically.
"""

import re
from collections import Counter
from collections.abc import Iterator

from moonshine.errors import DataError
from moonshine.inputs.archives import members
from moonshine.inputs.raw import RawFile, find_files
from moonshine.params.schema import Params
from moonshine.preparation.jpeg_store import JpegImage, JpegSource

IMAGE = re.compile(r"[^/]+/(train|val)/(n\d{8})/([^/.][^/]*)\.JPEG")


def open_source(params: Params, raw: None) -> JpegSource:
    """The archive, which is pinned, read once to check it and to count; each split is then a separate pass."""
    file = find_files(params)["archive"]
    with file.stream() as archive:
        found = [match.groups() for name, _ in members(archive, file.path) if (match := IMAGE.fullmatch(name))]
    wnids = sorted({wnid for _, wnid, _ in found})
    counts = {split: Counter(wnid for of, wnid, _ in found if of == split) for split in ("train", "val")}
    for split, count in counts.items():
        if absent := [wnid for wnid in wnids if not count[wnid]]:
            raise DataError(f"{file.path}: {split} has no image of {absent[0]}; get the archive again")
    return JpegSource(
        classes=wnids,
        splits={split: _split(file, split, wnids) for split in counts},
        counts={split: [count[wnid] for wnid in wnids] for split, count in counts.items()},
        bytes=file.path.stat().st_size,
        origin={"source": "Imagenette", "checksums": {"archive": file.checksum}},
    )


def _split(file: RawFile, wanted: str, wnids: list[str]) -> Iterator[JpegImage]:
    with file.stream() as archive:
        for name, content in members(archive, file.path):
            if (match := IMAGE.fullmatch(name)) and match[1] == wanted:
                yield JpegImage(content.read(), wnids.index(match[2]), match[3])
