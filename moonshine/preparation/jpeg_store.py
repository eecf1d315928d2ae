"""Write JPEG images as they stream from a source, each decoded once to check that it can be."""

import io
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from PIL import Image

from moonshine.errors import DataError, MachineError
from moonshine.images.decoding import (
    BROKEN_EXIF,
    UPRIGHT,
    decode_eight_bits,
    orientation,
    resize_shorter_side,
    scaled_size,
    turn_upright,
)
from moonshine.images.store import SPLITS, write_split
from moonshine.project.records import SplitRecord
from moonshine.runtime.progress import Progress, say
from moonshine.runtime.signals import STOP_SIGNALS

BLOCK = 32
"""Images sent to a decoding process at a time."""
QUALITY = 95
"""JPEG quality of images that are scaled or turned when prepared."""
LISTED = 100
"""Undecodable images that are named; the rest are only counted."""


@dataclass(frozen=True)
class JpegImage:
    """One image as the source has it."""

    encoded: bytes
    label: int
    id: str
    jpeg: bool = True
    """Whether its name claims that it is a JPEG."""
    problem: str | None = None
    """Why the source could not read it."""


@dataclass(frozen=True)
class JpegSource:
    """What a source's module returns; each split is read once, in order."""

    classes: list[str]
    """Names by label."""
    splits: Mapping[str, Iterable[JpegImage]]
    counts: Mapping[str, list[int]]
    """How many images each class must have, by label, for each split."""
    bytes: int
    """Approximate total size of the images."""
    origin: dict[str, Any]
    """What the manifest records about the source; complete once both splits have been read."""
    check: Callable[[], None] = lambda: None
    """To be called once both splits have been read; raises DataError if they must not be used together."""


@dataclass
class _Findings:
    """What decoding found in one split."""

    oddities: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


class _UnusableError(DataError):
    """A split that was read to its end and cannot be used."""


Inspection = tuple[bytes | None, str | None, str | None]
"""The scaled or turned image, if it was; what is odd about it; why it cannot be decoded or scaled."""
Look = Callable[[JpegImage], Inspection]


def write_jpeg_images(folder: Path, source: JpegSource, look: Look, workers: int) -> dict[str, SplitRecord]:
    """Write both splits; returns their manifest entries. `look` is `inspect` with the settings of the data set.

    DataError (exit code 3) lists images that cannot be decoded, and classes with a wrong number of images, in both
    splits.
    """
    entries: dict[str, SplitRecord] = {}
    problems = list[str]()
    for split in SPLITS:
        findings = _Findings(counts=[0] * len(source.classes))
        try:
            with Progress(f"{folder}: {split}", sum(source.counts[split]), unit="images") as progress:
                rows = _checked(source.splits[split], findings, look, workers, progress)
                # an incomplete split must not appear: the checks are part of the stream
                entries[split] = write_split(folder, split, _validated(rows, findings, source, split), None)
        except _UnusableError as error:
            problems.append(str(error))
            continue
        except DataError as error:  # the source itself failed; no more can be read from it
            problems.append(str(error))
            break
        entries[split]["oddities"] = findings.oddities
        say(f"{folder}: {split}: {entries[split]['count']:,} images, {len(findings.oddities)} of them odd but readable")
    if problems:
        raise DataError("\n".join(problems))
    source.check()
    return entries


def _validated(
    rows: Iterator[tuple[bytes, int, str]], findings: _Findings, source: JpegSource, split: str
) -> Iterator[tuple[bytes, int, str]]:
    """The rows, and an error after the last if anything was wrong with them."""
    yield from rows
    if findings.broken:
        more = len(findings.broken) - LISTED
        lines = findings.broken[:LISTED] + ([f"and {more:,} more images that cannot be decoded"] if more > 0 else [])
        raise _UnusableError("\n".join(f"{split}: {line}" for line in lines))
    wrong = [
        f"{name} has {found:,} images, not {expected:,}"
        for name, found, expected in zip(source.classes, findings.counts, source.counts[split])
        if found != expected
    ]
    if wrong:
        others = f" and {len(wrong) - 3} classes more" if len(wrong) > 3 else ""
        raise _UnusableError(f"{split}: {'; '.join(wrong[:3])}{others}; get the images again")


def _checked(
    jpeg_images: Iterable[JpegImage], findings: _Findings, look: Look, workers: int, progress: Progress
) -> Iterator[tuple[bytes, int, str]]:
    """The rows to write, in order; what is found on the way goes to `findings`."""
    for index, (jpeg_image, (encoded, oddity, problem)) in enumerate(_inspected(jpeg_images, look, workers)):
        if problem:
            findings.broken.append(f"{jpeg_image.id}: {problem}")
        if oddity:
            findings.oddities.append({"index": index, "id": jpeg_image.id, "kind": oddity})
        findings.counts[jpeg_image.label] += 1
        progress.update()
        yield encoded or jpeg_image.encoded, jpeg_image.label, jpeg_image.id


def _inspected(jpeg_images: Iterable[JpegImage], look: Look, workers: int) -> Iterator[tuple[JpegImage, Inspection]]:
    """Decode in worker processes, a bounded number of blocks ahead, in order."""
    rows = iter(jpeg_images)
    if not workers:
        yield from ((row, look(row)) for row in rows)
        return
    pending: deque[tuple[list[JpegImage], Future[list[Inspection]]]] = deque()
    pool = ProcessPoolExecutor(workers, get_context("fork"), _follow_the_main_process)
    try:
        while block := list(islice(rows, BLOCK)):
            pending.append((block, pool.submit(_inspect_block, block, look)))
            if len(pending) > 2 * workers:
                yield from _done(*pending.popleft())
        while pending:
            yield from _done(*pending.popleft())
    except BrokenProcessPool:
        raise MachineError("a decoding process died; memory may be full: reduce machine.workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _done(block: list[JpegImage], inspections: "Future[list[Inspection]]") -> Iterator[tuple[JpegImage, Inspection]]:
    return zip(block, inspections.result())


def _follow_the_main_process() -> None:
    """Leaves stop signals to the main process; this one ends when that has ended, even by kill -9."""
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()


def _end_with_the_main_process() -> None:
    main_process = parent_process()
    assert main_process is not None
    main_process.join()
    os._exit(1)


def _inspect_block(block: list[JpegImage], look: Look) -> list[Inspection]:
    return [look(jpeg_image) for jpeg_image in block]


def inspect(
    jpeg_image: JpegImage, resize: int | None, evaluation: int, channels: int = 3, upright: bool = False
) -> Inspection:
    """Decode one image to its end; turn it `upright`, and scale it if its shorter side is longer than `resize`.

    `evaluation` is the shorter side that evaluation scales to.
    """
    if jpeg_image.problem:
        return None, None, jpeg_image.problem
    try:
        decoded = decode_eight_bits(jpeg_image.encoded, "it", channels)
        image = turn_upright(decoded, jpeg_image.encoded) if upright else decoded
        scaled_size(image.size, "it", evaluation)
        is_large = resize is not None and min(image.size) > resize
        if image is decoded and not is_large:
            return None, _oddity(jpeg_image, upright), None
        if resize is not None and is_large:
            image = resize_shorter_side(image, "it", resize)
    except DataError as error:
        return None, None, str(error).removeprefix("it: ")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue(), _oddity(jpeg_image, upright), None


def _oddity(jpeg_image: JpegImage, upright: bool) -> str | None:
    """What is unusual about an image that can be decoded, and what part of it no network sees."""
    broken, held, animated = False, None, False
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but nothing is broken
        image = Image.open(io.BytesIO(jpeg_image.encoded))
        try:
            held = orientation(image)
            animated = getattr(image, "is_animated", False)
        except BROKEN_EXIF:
            broken = True
    found = (
        _odd_format(image, jpeg_image.jpeg, broken or bool(complaints)),
        "alpha" if image.has_transparency_data else None,
        "several frames" if animated else None,
        f"EXIF orientation {held}{', turned upright' if upright else ''}" if held in UPRIGHT else None,
    )
    return ", ".join(filter(None, found)) or None


def _odd_format(image: Image.Image, jpeg: bool, broken: bool) -> str | None:
    if image.format != "JPEG":
        return f"{image.format} under a JPEG's name" if jpeg else None
    if image.mode not in ("RGB", "L"):
        return image.mode
    return "broken EXIF" if broken else None
