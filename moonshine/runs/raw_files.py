"""Which raw files prepared data were made from, if no checksum in params.yaml pins them, and what changed since.

The record is next to the data in runs/prepare/<dataset>/<identity>/, which no engine declares. A file counts as changed
if its content is another: contents are compared if size or times differ, and the new times are then noted.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from moonshine.errors import MoonshineError
from moonshine.project import artefacts
from moonshine.runtime import signals
from moonshine.runtime.files import atomic_write, sha256
from moonshine.runtime.progress import tracked

RECORD = "raw-files.arrow"
COLUMNS = pa.schema(
    [("name", pa.string()), ("size", pa.int64()), ("mtime", pa.int64()), ("ctime", pa.int64()), ("sha256", pa.binary())]
)
"""Names are relative to the raw folder; times are nanoseconds."""
NAMED = 2
"""Files that are named for each kind of change; the rest are only counted."""

Stamp = tuple[int, int, int]
"""Size, modification time and inode change time: a file may be replaced by one of equal size and modification time."""


def stamps(files: Mapping[str, Path]) -> dict[str, Stamp]:
    """Name -> stamp of each file that exists; none is read."""
    found = {}
    for name, path in files.items():
        with suppress(OSError):  # whoever reads it reports what is wrong with it
            status = path.stat()
            found[name] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def hash_of_stamps(found: Mapping[str, Stamp]) -> str:
    """One hash of all names and stamps."""
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def write_record(
    folder: Path, files: Mapping[str, Path], found: Mapping[str, Stamp], hashes: Mapping[str, bytes]
) -> None:
    """Record the files with the stamps they had before they were read; those without a sha256 in `hashes` are read.

    `hashes` are by path, as text.
    """
    rows = []
    for name, stamp in found.items():
        signals.poll()
        path = files[name]
        rows.append((name, *stamp, hashes.get(str(path)) or bytes.fromhex(sha256(path))))
    _write(folder, rows)


def _write(folder: Path, rows: list[tuple[str, int, int, int, bytes]]) -> None:
    columns = zip(*rows) if rows else [()] * len(COLUMNS)
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, COLUMNS)], schema=COLUMNS)
    with atomic_write(folder / RECORD) as file, pa.ipc.new_file(file, COLUMNS) as writer:
        writer.write_table(table)


def changed_files(dataset: str, files: Mapping[str, Path]) -> str | None:
    """How the raw files differ from those that data/<dataset> was made from, in words; "" if they do not.

    None if this is not on record, as after `dvc pull`. Contents are read only where size or times differ.
    """
    folder = _folder_of_published(dataset)
    if folder is None:
        return None
    try:
        table = pa.ipc.open_file(folder / RECORD).read_all()
        recorded = {
            name: (*stamp, sha) for name, *stamp, sha in zip(*(table[name].to_pylist() for name in COLUMNS.names))
        }
    except (OSError, pa.ArrowException, KeyError):
        return None
    now = stamps(files)
    differing = [name for name, stamp in now.items() if name in recorded and stamp != recorded[name][:3]]
    changes = {
        "added": sorted(now.keys() - recorded.keys()),
        "removed": sorted(recorded.keys() - now.keys()),
        "changed": [
            name
            for name in tracked(differing, "compare raw files", len(differing), "files")
            if now[name][0] != recorded[name][0] or not _has_content(files[name], recorded[name][3])
        ],
    }
    if differing and not any(changes.values()):
        with suppress(MoonshineError):  # the next comparison then reads them again
            _write(folder, [(name, *stamp, recorded[name][3]) for name, stamp in now.items()])
    return ", ".join(_in_words(names, change) for change, names in changes.items() if names)


def _folder_of_published(dataset: str) -> Path | None:
    """Where in runs/ the published data are."""
    try:
        published = artefacts.manifest(dataset).read_bytes()
    except OSError:
        return None
    for record in (artefacts.RUNS / "prepare" / dataset).glob(f"*/{RECORD}"):
        with suppress(OSError):
            if (record.parent / artefacts.MANIFEST).read_bytes() == published:
                return record.parent
    return None


def _has_content(path: Path, digest: bytes) -> bool:
    signals.poll()
    try:
        return bytes.fromhex(sha256(path)) == digest
    except OSError:
        return False


def _in_words(names: list[str], change: str) -> str:
    dots = ", ..." if len(names) > NAMED else ""
    return f"{len(names):,} {'file' if len(names) == 1 else 'files'} {change} ({', '.join(names[:NAMED])}{dots})"
