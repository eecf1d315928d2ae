"""Messages and progress on stderr: a bar on a terminal, plain lines elsewhere, and a copy in a log file."""

import contextlib
import os
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from moonshine.runtime import distributed

SECONDS_BETWEEN_LINES = 20.0
OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that control a terminal, change the direction of text, or cannot be encoded."""
MISSING_GLYPH = re.compile(r"Glyph (\d+) .*missing from")

Item = TypeVar("Item")

_log_path: Path | None = None
_log_file: TextIO | None = None


def keep_log(path: Path) -> None:
    """From now on every message is also appended to this file, which is opened at the first one."""
    global _log_path
    if distributed.IS_MAIN:
        _log_path = path


def printable(text: str) -> str:
    """Untrusted text, such as the name of a class or a file, as one line that cannot control a terminal."""
    return OBEYED.sub(lambda character: character[0].encode("unicode_escape").decode(), text)


def say(message: str, log: bool = True) -> None:
    """Print one line, above the bar if there is one, and keep it in the log. Work continues even if both fail.

    Of several processes, only the first prints.
    """
    if not distributed.IS_MAIN:
        return
    message = "\n".join(map(printable, message.split("\n")))
    try:
        tqdm.write(message, file=sys.stderr)
        sys.stderr.flush()
    except OSError:  # the reader is gone, or the disk is full
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  # or the last flush would fail too, and change the exit code
    if log and _log_path:
        _append_to_log(message)


def _append_to_log(message: str) -> None:
    global _log_path, _log_file
    try:
        if _log_file is None and _log_path:
            _log_path.parent.mkdir(parents=True, exist_ok=True)
            _log_file = _log_path.open("a", buffering=1, encoding="utf-8")
            _log_file.write(time.strftime("-- %Y-%m-%d %H:%M:%S\n"))
        if _log_file:
            _log_file.write(message + "\n")
    except OSError as error:
        path, file, _log_path, _log_file = _log_path, _log_file, None, None
        if file:
            with contextlib.suppress(OSError):
                file.close()
        say(f"warning: {path}: {error.strerror}; no log is kept from here on")


@contextlib.contextmanager
def missing_glyphs_said_once() -> Iterator[None]:
    """Print one line with all characters that the font lacks; Matplotlib warns about every occurrence."""
    missing: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def collect(message: Warning | str, *where: Any, **more: Any) -> None:
            if glyph := MISSING_GLYPH.match(str(message)):
                missing.append(chr(int(glyph[1])))
            else:
                show(message, *where, **more)

        warnings.showwarning = collect
        yield
    say_lacking(missing)


def say_lacking(characters: Iterable[str]) -> None:
    """Print one line with all characters that the figures' font lacks."""
    if lacked := "".join(sorted(set(characters))):
        say(f"warning: figures show boxes for {lacked}, which their font lacks; choose other titles or class names")


class Progress:
    """Progress over `total` units with an ETA; `update` may be called as often as you like."""

    def __init__(self, title: str, total: int, done: int = 0, unit: str = "it"):
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self._first, self._start = done, time.monotonic()
        self._last_line = self._start
        hidden = None if distributed.IS_MAIN else True  # None: hidden unless this is a terminal
        self._bar = tqdm(total=total, initial=done, desc=title, unit=unit, disable=hidden, leave=False, file=sys.stderr)

    def update(self, count: int = 1, note: str = "") -> None:
        self.done += count
        self._bar.update(count)
        if note and not self._bar.disable:
            self._bar.set_postfix_str(note, refresh=False)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            say(f"{self.title}: {self.done:,}/{self.total:,} {self.unit}, {self._eta(now)} left {note}".rstrip())

    def _eta(self, now: float) -> str:
        rate = (self.done - self._first) / max(now - self._start, 1e-9)
        return tqdm.format_interval((self.total - self.done) / rate) if rate else "?"

    def close(self) -> None:
        self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tracked(items: Iterable[Item], title: str, total: int, unit: str = "it") -> Iterator[Item]:
    """Yield the items, showing progress."""
    with Progress(title, total, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()
