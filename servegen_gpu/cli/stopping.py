"""Signals that end a command, which tidies up first."""

from __future__ import annotations

import signal
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")
_stopped_by = [int(signal.SIGINT)]


def prepare() -> None:
    """Let SIGTERM and SIGHUP tidy up as Ctrl-C does.

    SIGTERM does so also where it is ignored; SIGHUP stays ignored under ``nohup``.
    """
    for name in NAMES:
        number = getattr(signal, name, None)
        if number is not None and (name == "SIGTERM" or signal.getsignal(number) != signal.SIG_IGN):
            signal.signal(number, _stop)


def status() -> int:
    """The exit status of a command that a signal ended: 128 and its number, as of shells."""
    return 128 + _stopped_by[-1]


def _stop(number: int, frame: FrameType | None) -> None:
    """End what runs; the same signal once more does not disturb the tidying up."""
    for name in NAMES:
        if (known := getattr(signal, name, None)) is not None:
            signal.signal(known, signal.SIG_IGN)
    _stopped_by.append(number)
    raise KeyboardInterrupt
