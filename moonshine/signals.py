"""Stop on request, at a moment of the program's choosing.

A handler that saved a checkpoint itself could store half a step or hang; so it only sets a flag, which every long
loop polls.
"""

import signal
from types import FrameType

from moonshine.errors import Interrupted

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

_received: int | None = None


def _remember(signal_number: int, frame: FrameType | None) -> None:
    global _received
    _received = _received or signal_number


def install_handlers() -> None:
    """From now on SIGTERM, SIGINT and SIGUSR1 set the flag instead of ending the process."""
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, _remember)


def stop_requested() -> bool:
    return _received is not None


def stop_now(message: str) -> Interrupted:
    """The exception that ends the process with 128 + signal, to be raised once the work is safe."""
    assert _received is not None
    return Interrupted(_received, f"stopped by {signal.Signals(_received).name}: {message}")


def poll(message: str = "nothing is lost, run the same command again") -> None:
    """Raise Interrupted if a stop was requested; for loops that have nothing to save."""
    if stop_requested():
        raise stop_now(message)
