"""One parent and its workers, in an interpreter of their own: ``python tests/workers.py WAY BACKEND``.

Prints the digest of the parent's trace, then one for each worker. The parent has made its trace before, so that its
threads are there when it forks. Python 3.12 warns of that; workers that need none of these threads do not hang.
"""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import servegen_gpu as sg
from servegen_gpu import blocks
from servegen_gpu.backends.native.kept import locked


def digest(backend: str) -> str:
    """Of a trace with conversations that is sampled in several blocks; of a smaller one with JAX, which compiles it."""
    small = backend == "jax"
    rate = {"jax": 20, "numpy": 75, "native": 300}[backend]
    if backend == "numpy":
        blocks.BLOCK = 1 << 14  # as many blocks as of a larger trace
    pool = sg.population("m-small" if small else "deepseek-r1", clients=20 if small else 50)
    trace = sg.generate(pool, rate=rate, duration=60 if small else 600, seed=3, backend=backend)
    assert len(trace) > (1000 if small else 500 * rate)
    return hashlib.sha256(b"".join(np.ascontiguousarray(trace[name]).data for name in trace)).hexdigest()


def in_processes(backend: str, method: str) -> list[str]:
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as workers:
        return list(workers.map(digest, [backend] * 3))


def in_joblib(backend: str) -> list[str]:
    import joblib

    ways = (joblib.Parallel(n_jobs=2, backend=way) for way in ("loky", "multiprocessing", "threading"))
    return [said for way in ways for said in way(joblib.delayed(digest)(backend) for _ in range(2))]


class Digests:
    """A dataset of torch whose items are made by the worker that is asked for them."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> str:
        return digest(self.backend)


def in_data_loader(backend: str) -> list[str]:
    from torch.utils.data import DataLoader

    loaders = (
        DataLoader(Digests(backend), batch_size=1, num_workers=2, multiprocessing_context=method)
        for method in ("fork", "spawn", "forkserver")
    )
    return [said for loader in loaders for batch in loader for said in batch]


def in_threads(backend: str) -> list[str]:
    with ThreadPoolExecutor(4) as workers:
        return list(workers.map(digest, [backend] * 8))


def forked(work: Callable[..., str], *arguments: object) -> str:
    """What `work` returns in a child that is forked here and now."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, work(*arguments).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def nested(backend: str) -> list[str]:
    """A worker's own worker, after a call in the worker."""
    return [forked(lambda: digest(backend) + "\n" + forked(digest, backend))]


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """`work` again and again in another thread."""
    done = threading.Event()

    def repeat() -> None:
        while not done.is_set():
            work()

    busy = threading.Thread(target=repeat)
    busy.start()
    try:
        yield
    finally:
        done.set()
        busy.join()


def while_sampling(backend: str) -> list[str]:
    with meanwhile(lambda: digest(backend)):
        return [forked(digest, backend) for _ in range(4)]


class Slow:
    """With a property that takes until `go` is set."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    @functools.cached_property
    def value(self) -> str:
        self.begun.set()
        self.go.wait()
        return "computed"


def while_computing_a_property() -> list[str]:
    """The lock of Python 3.11's cached properties, for a class of the package."""
    sg.ClientPool.slow = Slow.value  # type: ignore[attr-defined]
    slow, other = Slow(), Slow()
    other.go.set()
    busy = threading.Thread(target=lambda: slow.value)
    busy.start()
    slow.begun.wait()
    try:
        return ["computed", forked(lambda: other.value)]
    finally:
        slow.go.set()
        busy.join()


def while_building() -> list[str]:
    """A child that was forked while the parent held the folder of a build gets it after the parent."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(1) as beside:
        folder, (reader, writer) = Path(name), os.pipe()

        def build() -> str:
            os.write(writer, b"!")
            with locked(folder):
                return "built"

        with locked(folder):
            child = beside.submit(forked, build)
            os.read(reader, 1)
        return ["built", child.result()]


WAYS = {
    "threads": in_threads,
    "nested": nested,
    "sampling": while_sampling,
    "joblib": in_joblib,
    "dataloader": in_data_loader,
}


def main(way: str, backend: str = "") -> None:
    if not backend:
        said = {"property": while_computing_a_property, "build": while_building}[way]()
    else:
        said = [digest(backend)]
        if way in multiprocessing.get_all_start_methods():
            said += in_processes(backend, way)
        else:
            said += WAYS[way](backend)
    print(*said, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
