"""Read tar archives without ever unpacking one: members are read as bytes, and malicious ones are refused."""

import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol, cast

from moonshine.errors import DataError, SecurityError
from moonshine.inputs.raw import RawFile

LARGEST_MEMBER = 1 << 28
LARGEST_TAR = 1 << 33


def read_members(archive: RawFile, names: Iterable[str]) -> dict[str, bytes]:
    """The content of some members of a small archive, after its checksum has been verified.

    Raises DataError (exit code 3) for a damaged archive or a missing member, SecurityError (4) for a hostile one.
    """
    wanted, found = set(names), {}
    for name, content in members(io.BytesIO(archive.read()), archive.path):
        if name in wanted:
            found[name] = content.read()
    if absent := sorted(wanted - found.keys()):
        raise DataError(f"{archive.path}: has no {absent[0]}")
    return found


class Readable(Protocol):
    """The part of a file's interface that tarfile needs."""

    def read(self, size: int = -1, /) -> bytes: ...


class Content:
    """The bytes of a member. They are read in the caller's frame, where `members` cannot report damage."""

    def __init__(self, file: Readable, path: Path | str):
        self._file, self._path = file, path

    def read(self, size: int = -1) -> bytes:
        with _damage_named(self._path):
            return self._file.read(size)


def members(
    file: Readable, path: Path | str, compressed: bool = True, largest: int = LARGEST_MEMBER
) -> Iterator[tuple[str, Content]]:
    """(name, content) of each regular file of a tar in one pass; `path` is for messages.

    A content can be read until the next member is requested. Nothing is written anywhere; even so, names that lead out
    of the archive, links, devices, names used twice and members of more than `largest` bytes are refused.
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
            yield member.name, Content(content, path)


@contextmanager
def _tar(file: Readable, path: Path | str, compressed: bool) -> Iterator[tarfile.TarFile]:
    with _damage_named(path), tarfile.open(fileobj=cast(IO[bytes], file), mode="r|*" if compressed else "r|") as tar:
        yield tar


@contextmanager
def _damage_named(path: Path | str) -> Iterator[None]:
    try:
        yield
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
