"""Child processes that tests interrupt."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def started(command: Sequence[Any], **keywords: Any) -> Iterator[subprocess.Popen[str]]:
    """A child to which SIGINT means what it means at a terminal, even if the tests were started to ignore it.

    It does not outlive the test.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored signals stay so in children, others not
    try:
        process = subprocess.Popen(command, text=True, **keywords)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            process.kill()
