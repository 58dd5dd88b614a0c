"""Workers of Ray that die, and a store whose parts somebody looks at all the while."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from servegen_gpu.formats.store import store_at

TASK = "ray::_alone"
"""How Ray calls a process while it runs a task of ours."""


def descendants(of: int) -> list[int]:
    """Processes that a process started, and those that these started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            about = (folder / "stat").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = int(about.rpartition(")")[2].split()[1])
    found = [of]
    for one in found:
        found += [pid for pid, parent in parents.items() if parent == one]
    return found[1:]


def busy_workers() -> list[int]:
    """Our Ray workers that have a task at this moment."""

    def title(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            return ""

    return [pid for pid in descendants(os.getpid()) if title(pid).startswith(TASK)]


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Work in another thread, which is told by an event when the block has ended."""
    done = threading.Event()
    worker = threading.Thread(target=work, args=(done,))
    worker.start()
    try:
        yield
    finally:
        done.set()
        worker.join()


@contextmanager
def killing(count: int, after_s: float = 0.3) -> Iterator[list[int]]:
    """Kill so many workers, one after another, each in the middle of a task; the list has their numbers."""
    killed: list[int] = []

    def work(done: threading.Event) -> None:
        while len(killed) < count and not done.is_set():
            for pid in [pid for pid in busy_workers() if pid not in killed][:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                done.wait(after_s)
            done.wait(0.01)

    with beside(work):
        yield killed


@contextmanager
def watching(path: str) -> Iterator[list[str]]:
    """Read every part as soon as it has its name; the list has what was wrong with them."""
    wrong: list[str] = []

    def work(done: threading.Event) -> None:
        store, seen = store_at(path), dict[str, int]()
        while not done.is_set():
            for name, entry in store.files().items():
                if name.startswith("part-") and seen.get(name) != entry.size:
                    seen[name] = entry.size
                    try:
                        pq.read_table(io.BytesIO(store.read([name])[name]))
                    except Exception as error:
                        wrong.append(f"{name} with {entry.size} bytes: {error}")
            time.sleep(0.02)
        if not seen:
            wrong.append("no part was seen")

    with beside(work):
        yield wrong
