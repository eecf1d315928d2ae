"""Downloads that resume where they were cut off, and count only once their checksum is right."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import requests

from moonshine.errors import DataError, SecurityError, WriteError
from moonshine.params.urls import check_url
from moonshine.runtime import signals
from moonshine.runtime.files import explain, make_folder, sync_folder
from moonshine.runtime.progress import Progress, say

ATTEMPTS = 5
FIRST_PAUSE = 0.5
"""Seconds before the second attempt; each pause is twice the one before."""
BLOCK = 1 << 16
"""At most this many bytes of a broken transfer are received again."""
SECONDS_BETWEEN_LOOKS = 0.1
"""Between checks whether another process has finished downloading the same file."""


def download(url: str, path: Path, check: Callable[[Path], None], seconds: float) -> None:
    """Fetch `url` to `path`, which appears only once `check` has accepted it.

    A server that is silent for `seconds` counts as gone. What was received before a transfer broke is kept next to
    `path`, and the next attempt or call resumes there; of several processes, one downloads and the others wait.
    Raises DataError (exit code 3) if it gets something else, SecurityError (4) for a redirect away from https,
    WriteError (9) after the last attempt.
    """
    make_folder(path.parent)
    with _alone(path.with_name(path.name + ".lock")):
        if path.exists():
            check(path)
        else:
            _fetch(url, path, check, seconds)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock file, which is removed at the end; wait while another process holds it."""
    told = False
    while not (file := _held(lock)):
        if not told:
            say(f"{lock}: another process downloads the same file; waiting for it")
            told = True
        _pause(SECONDS_BETWEEN_LOOKS)
    with file:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _held(lock: Path) -> BinaryIO | None:
    """The lock file, locked, or None if another process has it or has just removed it."""
    try:
        file = lock.open("ab")
    except OSError as error:
        raise explain(error, lock) from None
    with suppress(OSError):  # a file system without locks
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
    if os.fstat(file.fileno()).st_nlink:
        return file
    file.close()
    return None


def _fetch(url: str, path: Path, check: Callable[[Path], None], seconds: float) -> None:
    part = path.with_name(path.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        continued = part.exists()
        try:
            _transfer(url, part, seconds)
            check(part)
            os.replace(part, path)
            sync_folder(path.parent)
            return
        except requests.RequestException as error:
            reason = f"{type(error).__name__}, {_size(part):,} bytes so far"
        except DataError:
            part.unlink(missing_ok=True)
            if not continued:
                raise
            reason = "the resumed download is not the file; starting again"
        except OSError as error:
            raise explain(error, part) from None
        say(f"{url}: attempt {attempt} of {ATTEMPTS} failed ({reason})")
        if attempt < ATTEMPTS:
            _pause(FIRST_PAUSE * 2 ** (attempt - 1))
    raise WriteError(f"{url}: {ATTEMPTS} attempts failed ({reason}); the same command resumes there")


def _transfer(url: str, part: Path, seconds: float) -> None:
    """Receive the rest of `part`; requests' exceptions mean that another attempt may help."""
    done = _size(part)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    hooks = {"response": _check_redirect}
    with requests.get(url, headers=headers, stream=True, timeout=seconds, hooks=hooks) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # it is complete already, or the check will reject it
        if response.status_code >= requests.codes.server_error:
            raise requests.HTTPError(f"status {response.status_code}")
        if not response.ok:
            raise DataError(f"{url}: the server answers {response.status_code} {response.reason}; correct the url")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise DataError(f"{url}: the server sends an HTML page, not the file; correct the url")
        partial = response.status_code == requests.codes.partial_content
        _receive(response, part, done if partial else 0)


def _check_redirect(response: requests.Response, **_: object) -> None:
    """Called by requests for every response, before it follows a redirect: never away from https or to a bad URL."""
    if not response.is_redirect:
        return
    target = requests.utils.requote_uri(urljoin(response.url, response.headers["Location"]))
    try:
        check_url(target)
    except ValueError as error:
        raise SecurityError(f"{response.url}: redirects to {error}; correct the url") from None
    if urlsplit(response.url).scheme == "https" != urlsplit(target).scheme:
        raise SecurityError(f"{response.url}: redirects to {target}, which is not https; correct the url")


def _receive(response: requests.Response, part: Path, done: int) -> None:
    claimed = response.headers.get("Content-Length", "")
    total = done + (int(claimed) if claimed.isdecimal() else 0)
    with (
        part.open("ab" if done else "wb") as file,
        Progress(part.name.removesuffix(".part"), total, done, unit="B") as progress,
    ):
        for block in response.iter_content(BLOCK):
            signals.poll("what was received is kept, the same command resumes there")
            file.write(block)
            progress.update(len(block))
        file.flush()
        os.fsync(file.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _pause(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        signals.poll("what was received is kept, the same command resumes there")
        time.sleep(0.1)
