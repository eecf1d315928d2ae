"""Messages and progress on stderr: a bar on a terminal, plain lines elsewhere, and a copy in a log file."""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 20.0

Item = TypeVar("Item")

_log_file: TextIO | None = None


def keep_log(path: Path) -> None:
    """From now on every message also goes to this file, which is begun anew."""
    global _log_file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _log_file = path.open("w", buffering=1)
    except OSError as error:
        say(f"no log is kept: {path}: {error.strerror}")


def say(message: str) -> None:
    """Print one line, above the bar if there is one."""
    try:
        tqdm.write(message, file=sys.stderr)
        sys.stderr.flush()
    except BrokenPipeError:
        pass  # nobody reads any more; the work goes on
    if _log_file:
        try:
            _log_file.write(message + "\n")
        except OSError:
            pass  # a full disk must not cost the training its messages' reader


class Progress:
    """Progress over `total` units with an ETA; `update` may be called as often as wanted."""

    def __init__(self, title: str, total: int, done: int = 0, unit: str = "it"):
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self._first, self._start = done, time.monotonic()
        self._last_line = self._start
        self._bar = tqdm(total=total, initial=done, desc=title, unit=unit, disable=None, leave=False, file=sys.stderr)

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
