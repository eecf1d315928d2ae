"""Prepared data stay in runs/prepare/<dataset>/<identity>/, which no stage declares; data/<dataset>/ links to them.

Engines delete a stage's declared outputs before its job starts and again if it fails, and licensed data have no other
copy: preparing ImageNet again takes hours. So new data are written next to the old ones, which are removed only once
the new ones are complete and published. The links are hard links and take no space.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import features

from moonshine.errors import DataError, MoonshineError
from moonshine.images.store import SPLITS, read_manifest, split_path
from moonshine.params.schema import Params
from moonshine.project import artefacts
from moonshine.project.graph import CODE, PACKAGE, SOURCES, code_files
from moonshine.runs.raw_files import Stamp, hash_of_stamps, stamps
from moonshine.runtime import signals
from moonshine.runtime.files import atomic_write, explain, make_folder, remove, sha256, sync_folder
from moonshine.runtime.locks import hold_lock
from moonshine.runtime.progress import say

UNFINISHED = "unfinished"
FILES = (*(f"{split}.arrow" for split in SPLITS), artefacts.MANIFEST)
"""In the order in which they are published: a manifest means that everything is there."""
DECODERS = ("numpy", "pillow", "pyarrow", "scikit-learn")
BLOCK = 1 << 24


class KeptData:
    """The prepared data of one data set, locked from construction to the end of the process."""

    def __init__(self, params: Params, raw_files: Mapping[str, Path] | None = None):
        """`raw_files` are the files that the data are made from, by name, if no checksum in params.yaml pins them."""
        self.raw_stamps = stamps(raw_files or {})
        self.published = artefacts.data_folder(params.dataset.name)
        self.parent = artefacts.RUNS / "prepare" / params.dataset.name
        hold_lock(self.parent)
        self.path = self.parent / _hash(_identity(params, self.raw_stamps))

    def is_complete(self) -> bool:
        """Whether exactly these data have been prepared before and are undamaged; reads all of them."""
        if not (self.path / artefacts.MANIFEST).exists():
            return False
        if damaged := _damaged(self.path):
            say(f"warning: {damaged}: damaged, so the data are prepared again")
            return False
        say(f"{self.path}: has these data already, and their checksums are right")
        return True

    @contextmanager
    def written(self) -> Iterator[Path]:
        """An empty folder to write them into, which counts once the context has ended without an error.

        After an error it is removed, and the previous data are published again if an engine has deleted them.
        """
        unfinished = self.parent / UNFINISHED
        try:
            remove(unfinished)  # left by a killed process
            yield unfinished
            remove(self.path)
            unfinished.rename(self.path)
            sync_folder(self.parent)
        except BaseException as error:
            with suppress(OSError):
                remove(unfinished)
            self._bring_back()
            if isinstance(error, OSError):
                raise explain(error, unfinished) from error
            raise

    def publish(self) -> None:
        """Link the data into place, the manifest last, and remove all other prepared data."""
        _publish(self.path, self.published)
        for other in self._folders():
            if other != self.path:
                remove(other)

    def former(self) -> Path | None:
        """The folder of the data prepared last, if there are any."""
        complete = [
            folder for folder in self._folders() if (folder / artefacts.MANIFEST).exists() and folder.name != UNFINISHED
        ]
        return max(complete, key=lambda folder: folder.stat().st_mtime, default=None)

    def _folders(self) -> list[Path]:
        return [path for path in self.parent.iterdir() if path.is_dir()]

    def _bring_back(self) -> None:
        if former := self.former():
            with suppress(MoonshineError, OSError):  # the first error is the one to report
                if not (self.published / artefacts.MANIFEST).exists():
                    _publish(former, self.published)
            say(f"{former}: keeps the previous data; `moonshine prepare` with their params and images restores them")


def _publish(source: Path, target: Path) -> None:
    """Links or copies are made next to the targets first, so that any failure comes before a target is replaced."""
    staged = {target / name: target / f".{name}.tmp-link" for name in FILES}
    try:
        make_folder(target)
        for path, temporary in staged.items():
            temporary.unlink(missing_ok=True)
            _link_or_copy(source / path.name, temporary)
        (target / artefacts.MANIFEST).unlink(missing_ok=True)
        for path, temporary in staged.items():
            temporary.replace(path)
        sync_folder(target)
    except OSError as error:
        raise explain(error, target) from error
    finally:
        for temporary in staged.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path) -> None:
    """Copies across file systems, and if DVC has made the file read-only because its cache links to it."""
    if source.stat().st_mode & 0o200:
        with suppress(OSError):
            target.hardlink_to(source)
            return
    with source.open("rb") as file, atomic_write(target, source.stat().st_size) as copy:
        while block := file.read(BLOCK):
            signals.poll()
            copy.write(block)


def _damaged(folder: Path) -> Path | None:
    """The first file that does not match the manifest."""
    try:
        splits = read_manifest(folder)["splits"]
    except DataError:
        return folder / artefacts.MANIFEST
    wrong = (path for split in SPLITS if not _has_sha256(path := split_path(folder, split), splits[split]["sha256"]))
    return next(wrong, None)


def _has_sha256(path: Path, expected: str) -> bool:
    try:
        return sha256(path) == expected
    except OSError:
        return False


def _identity(params: Params, raw_stamps: Mapping[str, Stamp]) -> dict[str, Any]:
    """All that determines the bytes: settings, code, decoders, and the raw files if no checksum pins them."""
    exclude: Any = {"shared": True, "licensed": True, "files": {"__all__": {"url"}}}
    modules = code_files([*CODE["prepare"], SOURCES.format(source=params.dataset.source)])
    return {
        "dataset": params.dataset.model_dump(exclude=exclude, exclude_none=True),
        "code": {module: sha256(PACKAGE / module) for module in modules},
        "versions": {name: version(name) for name in DECODERS},
        "jpeg": [features.version(name) for name in ("jpg", "libjpeg_turbo")],
        "raw_files": hash_of_stamps(raw_stamps),
    }


def _hash(identity: dict[str, Any]) -> str:
    """16 hex digits that name the folder."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
