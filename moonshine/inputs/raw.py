"""Find the files that a data set is made from, and check each against the checksum that params.yaml pins.

They are only ever read. Each is looked for in machine.raw_data.<source> or, if that is not set, where Debian's package
installs it; otherwise it is downloaded, if it has a url, and kept in machine.downloads.
"""

import dataclasses
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from moonshine.errors import DataError, ParamsError
from moonshine.params.schema import DataFile, Params
from moonshine.runtime import signals

DEBIAN = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}
BLOCK = 1 << 20


@dataclass(frozen=True)
class RawFile:
    """A file and its entry in params.yaml."""

    path: Path
    pin: DataFile

    @property
    def checksum(self) -> str:
        return next(value for value in (self.pin.sha256, self.pin.md5, self.pin.content_sha256) if value)

    @contextmanager
    def stream(self) -> Iterator[BinaryIO]:
        """The file, to be read once from start to end; DataError (exit code 3) at the end if its checksum is wrong.

        What was read must not be trusted before the context has ended. With `content_sha256` it is read decompressed.
        """
        try:
            with self.path.open("rb") as file:
                unpacked = gzip.GzipFile(fileobj=file) if self.pin.content_sha256 else file
                reader = _HashingReader(cast(BinaryIO, unpacked), "md5" if self.pin.md5 else "sha256")
                yield cast(BinaryIO, io.BufferedReader(reader, BLOCK))
                while reader.read(BLOCK):
                    pass
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{self.path}: truncated or damaged ({error}); get it again") from None
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from None
        if reader.hexdigest() != self.checksum:
            raise DataError(
                f"{self.path}: its checksum is {reader.hexdigest()}, params.yaml pins {self.checksum}; get it again"
            )

    def check(self) -> None:
        """Read it to the end only to verify its checksum."""
        with self.stream():
            pass

    def read(self) -> bytes:
        """The whole content, checked; for files that fit in memory."""
        with self.stream() as file:
            return file.read()


class _HashingReader(io.RawIOBase):
    """Passes reads through and hashes what was read."""

    def __init__(self, file: BinaryIO, algorithm: str):
        self._file, self._hash = file, hashlib.new(algorithm, usedforsecurity=False)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        signals.poll("nothing half-made is left, run the same command again")
        content = self._file.read(len(buffer))
        self._hash.update(content)
        buffer[: len(content)] = content
        return len(content)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def find_files(params: Params) -> dict[str, RawFile]:
    """Role -> file, for the roles that the source of params.dataset has."""
    return {role: _find(params, pin) for role, pin in (params.dataset.files or {}).items()}


def _find(params: Params, pin: DataFile) -> RawFile:
    source = params.dataset.source
    if source in params.machine.raw_data:
        path = raw_folder(params) / pin.name
        if not path.is_file():
            raise DataError(f"{path}: missing; machine.raw_data.{source} has to hold it")
        return RawFile(path, pin)
    installed = DEBIAN.get(source, Path()) / pin.name
    if installed.is_file():
        return RawFile(installed, pin)
    if pin.url is None:
        raise DataError(
            f"{pin.name}: not found; set machine.raw_data.{source} in params.yaml to the folder that holds it"
        )
    return _downloaded(params, pin, pin.url)


def _downloaded(params: Params, pin: DataFile, url: str) -> RawFile:
    from moonshine.inputs.download import download

    file = RawFile(Path(params.machine.downloads).expanduser() / pin.name, pin)
    file = dataclasses.replace(file, path=file.path.with_name(f"{file.checksum[:16]}-{pin.name}"))
    if not file.path.exists():
        download(url, file.path, lambda part: RawFile(part, pin).check(), params.machine.download_seconds)
    return file


def raw_folder(params: Params) -> Path:
    """The folder of the source's raw data that params.yaml names."""
    source = params.dataset.source
    try:
        return Path(params.machine.raw_data[source]).expanduser()
    except KeyError:
        raise ParamsError(f"machine.raw_data.{source}: missing key; the folder that holds the images") from None
