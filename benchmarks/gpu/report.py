"""What was found: a line for a reader, and the same as JSON in a file that can be sent to somebody else."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OK, FAIL, NOTE, SPEED = "ok", "FAIL", "note", "speed"
MACHINE, END = "machine", "end"
"""The first and the last line of the file; the others are findings."""


class Report:
    """Prints one line per finding and writes it to `path`, which is overwritten."""

    def __init__(self, path: Path, machine: dict[str, Any]):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.counts = path, Counter[str]()
        self.failures: list[str] = []
        self._file, self._part = path.open("w"), ""
        self._write({"kind": MACHINE, **machine})

    def require(self, is_kept: bool, name: str, text: str = "", **figures: Any) -> None:
        """One promise, which is kept or broken."""
        self._find(OK if is_kept else FAIL, name, text, figures)

    def note(self, name: str, text: str, **figures: Any) -> None:
        """Something to know that is neither right nor wrong."""
        self._find(NOTE, name, text, figures)

    def leave_out(self, name: str, why: str) -> None:
        """A promise or a measurement for which something is missing here."""
        self._find(NOTE, name, f"left out: {why}", {"left_out": True})

    def speed(self, name: str, text: str, **figures: Any) -> None:
        """A measurement; `figures` are its numbers."""
        self._find(SPEED, name, text, figures)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Findings inside it belong to this part. An exception is a FAIL of the part and ends only that part."""
        self._part, begin = name, time.monotonic()
        try:
            yield
        except Exception as error:  # noqa: BLE001 (the other parts must run)
            message = " ".join(str(error).split())
            self.require(False, name, f"ended by {type(error).__name__}: {message[:600]}")
        seconds = time.monotonic() - begin
        self.note(name, f"took {seconds:.1f} s", seconds=seconds)
        self._part = ""

    def close(self) -> None:
        """Write the last line; a file without it is from a run that was stopped."""
        self._write({"kind": END, **{kind: self.counts[kind] for kind in (OK, FAIL, NOTE, SPEED)}})
        self._file.close()

    def _find(self, kind: str, name: str, text: str, figures: dict[str, Any]) -> None:
        self.counts[kind] += 1
        if kind == FAIL:
            self.failures.append(name)
        print(f"{kind:5} {name}: {text}" if text else f"{kind:5} {name}", flush=True)
        self._write({"kind": kind, "part": self._part, "name": name, "text": text, **figures})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
