"""Stop on request, at a point that the program chooses.

A handler that saved a checkpoint itself could store half a step or hang, so it only sets a flag, which every long
loop polls.
"""

import signal
from types import FrameType

from moonshine.errors import Interrupted

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

_received = 0


def _remember(signal_number: int, frame: FrameType | None) -> None:
    global _received
    _received = _received or signal_number


def install_handlers() -> None:
    """From now on SIGTERM, SIGINT and SIGUSR1 set the flag instead of ending the process."""
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, _remember)


def received() -> int:
    """The number of the first signal that asked to stop, or 0."""
    return _received


def stop_now(message: str, number: int | None = None) -> Interrupted:
    """The exception that ends the process with 128 + signal, to be raised once the work is safe.

    `number` is the signal that another process of this training run received.
    """
    number = number or _received
    return Interrupted(number, f"stopped by {signal.Signals(number).name}: {message}")


def poll(message: str = "nothing is lost, run the same command again") -> None:
    """Raise Interrupted if a stop was requested; for loops that have nothing to save."""
    if _received:
        raise stop_now(message)
