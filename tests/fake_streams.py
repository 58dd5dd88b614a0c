"""Streams and events of the stand-in for CuPy, and who waited for whom; part of fake_cuda.py.

Nothing here runs later than it is called, but for copies to the host. What a device would do in another order is found
by clocks instead: every stream counts what was started on it, and every use of memory must come after the uses before
it by a wait that the program asked for.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

Clock = dict[int, int]
"""How much of every stream is known to be done."""


def merge(clock: Clock, other: Mapping[int, int]) -> None:
    """Know what another clock knows."""
    for stream, n in other.items():
        clock[stream] = max(n, clock.get(stream, 0))


class Stream:
    """A stream; copies to the host wait in it until somebody waits for them."""

    numbers = itertools.count(1)

    def __init__(self, cuda: Any, device: int, blocking: bool = True, null: bool = False) -> None:
        self.cuda, self.device, self.blocking, self.null = cuda, device, blocking, null
        self.number = next(self.numbers)
        self.ptr = 0 if null else self.number
        self.clock: Clock = {}
        self.waiting: list[tuple[int, Callable[[], None]]] = []
        cuda.clocks.streams[self.number] = self

    def wait_event(self, event: Event) -> None:
        assert event.recorded
        merge(self.clock, event.clock)

    def synchronize(self) -> None:
        self.cuda.happens("synchronize")
        self.run(self.clock.get(self.number, 0))
        merge(self.cuda.clocks.host, self.clock)

    def run(self, until: int) -> None:
        """What waits, up to a point."""
        while self.waiting and self.waiting[0][0] <= until:
            self.waiting.pop(0)[1]()

    def __enter__(self) -> Stream:
        self.cuda.stack().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.cuda.stack().pop()


class Event:
    """Remembers the stream that it was recorded on, when, and after what."""

    def __init__(self, cuda: Any, disable_timing: bool = False) -> None:
        self.cuda = cuda
        self.recorded, self.timed = 0.0, not disable_timing
        self.stream: Stream | None = None
        self.clock: Clock = {}

    def record(self, stream: Stream | None = None) -> None:
        self.cuda.happens("record")
        self.recorded, self.stream = time.perf_counter(), stream or self.cuda.get_current_stream()
        with self.cuda.lock:
            self.cuda.clocks.tick(self.stream)
            self.clock = dict(self.stream.clock)

    def synchronize(self) -> None:
        self.cuda.happens("synchronize")
        if self.stream:
            with self.cuda.lock:
                self.stream.run(self.clock.get(self.stream.number, 0))
                merge(self.cuda.clocks.host, self.clock)


class Clocks:
    """What the host knows to be done, and what each stream waits for."""

    def __init__(self) -> None:
        self.host: Clock = {}
        self.streams: dict[int, Stream] = {}

    def tick(self, stream: Stream) -> int:
        """Start something on a stream: after all that the host knows, and as the null stream demands."""
        merge(stream.clock, self.host)
        if stream.blocking:
            for other in list(self.streams.values()):  # a thread may make one meanwhile
                if other.device == stream.device and other.blocking and (stream.null or other.null):
                    merge(stream.clock, other.clock)
        n = stream.clock[stream.number] = stream.clock.get(stream.number, 0) + 1
        return n

    def check(self, uses: Mapping[int, int], stream: Stream, what: str) -> None:
        """Refuse what would come too early."""
        merge(stream.clock, self.host)
        for other, n in uses.items():
            known = stream.clock.get(other, 0)
            assert other in (0, stream.number) or n <= known, f"{what}: stream {stream.number} did not wait for {other}"

    def read(self, memory: Any, stream: Stream) -> None:
        """Memory is read by the last thing started on a stream."""
        self.check(dict([memory.wrote]), stream, "read before it is written")
        memory.read[stream.number] = stream.clock.get(stream.number, 0)

    def write(self, memory: Any, stream: Stream) -> None:
        """Memory is written."""
        self.check(dict([memory.wrote]) | memory.read, stream, "written while it is used")
        memory.wrote, memory.read = (stream.number, stream.clock.get(stream.number, 0)), {}
