"""Read tar archives without ever unpacking one: members are read as bytes, and only honest ones."""

import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from moonshine.data.raw import RawFile
from moonshine.errors import DataError, SecurityError

LARGEST_MEMBER = 1 << 28
LARGEST_TAR = 1 << 33


def read_members(archive: RawFile, names: Iterable[str]) -> dict[str, bytes]:
    """The content of some members of a small archive, after its checksum was found right.

    Raises DataError (exit code 3) for a damaged archive or a missing member, SecurityError (4) for a hostile one.
    """
    wanted, found = set(names), {}
    for name, content in members(io.BytesIO(archive.read()), archive.path):
        if name in wanted:
            found[name] = content.read()
    if absent := sorted(wanted - found.keys()):
        raise DataError(f"{archive.path}: has no {absent[0]}")
    return found


def members(
    file: IO[bytes], path: Path | str, compressed: bool = True, largest: int = LARGEST_MEMBER
) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, content) of each regular file of a tar in one pass; `path` is for messages.

    A content can be read until the next member is asked for. Nothing is written anywhere, yet a member whose name
    leads out of the archive, a link, a device, a name used twice or a member of more than `largest` bytes is refused.
    """
    seen = set()
    with _tar(file, path, compressed) as tar:
        for member in tar:
            _refuse_hostile(member, path, largest)
            if member.isdir():
                continue
            if member.name in seen:
                raise SecurityError(f"{path}: {member.name!r} is in it twice; get the archive again")
            seen.add(member.name)
            content = tar.extractfile(member)
            assert content is not None
            yield member.name, content


@contextmanager
def _tar(file: IO[bytes], path: Path | str, compressed: bool) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=file, mode="r|*" if compressed else "r|") as tar:
            yield tar
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataError(f"{path}: truncated or damaged ({error}); get it again") from None


def _refuse_hostile(member: tarfile.TarInfo, path: Path | str, largest: int) -> None:
    parts = member.name.split("/")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise SecurityError(f"{path}: {member.name!r} is a link, a device or the like; get the archive again")
    if member.name.startswith("/") or ".." in parts or "\\" in member.name or "\0" in member.name:
        raise SecurityError(f"{path}: {member.name!r} leads out of the archive; get the archive again")
    if not 0 <= member.size <= largest:
        raise SecurityError(f"{path}: {member.name!r} claims {member.size:,} bytes; get the archive again")
