"""Know from outside, and after its death, what a `moonshine` process was doing: two bytes in a file mapped by it."""

import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = {
    b"s": "start",
    b"w": "preparing",
    b"t": "training",
    b"a": "averaging",
    b"c": "saving",
    b"e": "evaluation",
    b"f": "end of epoch",
    b"p": "publishing",
}


def read_phase(path: Path) -> str:
    try:
        return NAMES.get(path.read_bytes()[:1], "start")
    except FileNotFoundError:
        return "start"


def steps(path: Path) -> int:
    """How many training steps or candidates of a search it had finished, up to 255."""
    return (path.read_bytes() or b"\0\0")[1]


def record_phases(path: Path, pause: str | None = None) -> None:
    """From now on this process notes what it does in the file, and stops itself when it first enters `pause`."""
    import moonshine.search.ranking
    import moonshine.stages.distil
    import moonshine.stages.evaluate
    import moonshine.stages.prepare
    import moonshine.stages.train
    import moonshine.training.loop
    from moonshine.training.averaging import WeightAverage
    from moonshine.training.state import TrainingState

    path.write_bytes(b"s\0")
    with path.open("r+b") as file:
        note = mmap.mmap(file.fileno(), 2)

    def enter(letter: bytes) -> None:
        nonlocal pause
        note[:1] = letter
        if NAMES[letter] == pause:
            pause = None
            os.kill(os.getpid(), signal.SIGSTOP)

    def note_calls(owner: Any, name: str, letter: bytes) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def wrapper(*arguments: Any, **named: Any) -> Any:
            before = note[:1]
            enter(letter)
            try:
                result = function(*arguments, **named)
                note[1] += letter == b"t"
                return result
            finally:
                note[:1] = before

        setattr(owner, name, wrapper)

    note_calls(moonshine.stages.prepare, "write_split", b"w")
    note_calls(moonshine.training.loop, "save_checkpoint", b"c")
    note_calls(moonshine.search.ranking, "save_checkpoint", b"c")
    note_calls(moonshine.search.ranking, "fisher_potential", b"t")
    note_calls(moonshine.training.loop, "measure", b"e")
    note_calls(moonshine.stages.evaluate, "measure", b"e")
    note_calls(moonshine.stages.train, "publish", b"p")
    note_calls(moonshine.stages.distil, "publish", b"p")
    note_calls(TrainingState, "step", b"t")
    note_calls(TrainingState, "finish_epoch", b"f")
    note_calls(WeightAverage, "update", b"a")
    enter(b"s")  # before any work


def stop_after_checkpoint(number: int, mark: Path | None = None) -> None:
    """From now on this process stops itself once it has saved a checkpoint of this or a higher number.

    Of all processes with the same `mark`, a file that it makes, only one stops, once.
    """
    from moonshine.training import loop

    save = loop.save_checkpoint

    def save_and_stop(folder: Path, saved: int, state: dict[str, Any]) -> None:
        save(folder, saved, state)
        if saved >= number and not (mark and mark.exists()):
            if mark:
                mark.touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    loop.save_checkpoint = save_and_stop
