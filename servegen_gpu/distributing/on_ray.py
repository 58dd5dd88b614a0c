"""Work on a Ray cluster: a bounded number of tasks at a time, those of lost workers made again."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from servegen_gpu import options
from servegen_gpu.blocks import single_threaded
from servegen_gpu.errors import OptionError, OutputError

PLACES = ("here", "ray")
OLDEST = (2, 45)
"""Version of Ray: the first one for all of Python 3.11 to 3.13."""
TRIES = 5
"""Of a task whose worker or node was lost, beyond those that Ray makes by itself."""
RETRIES = 3
"""That Ray makes by itself, each time."""
CONNECT_S = 10.0
"""How long a cluster has to answer a first call."""
CLEAR_S = 10.0
"""How long tasks that were cancelled have to remove what they were writing."""

S = TypeVar("S")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741


def check_on(on: str, workers: int | None) -> None:
    """Refuse other places to work than ``here`` and ``ray``, no worker, and a Ray that is missing or too old.

    Raises
    ------
    OptionError
    """
    if on not in PLACES:
        raise OptionError(f"on as one of {', '.join(PLACES)}", repr(on), "change on")
    if workers is not None and not options.integer("workers", workers, 10**6):
        raise OptionError("one worker or more", repr(workers), "change workers")
    if on == "ray":
        import_ray()


def import_ray() -> Any:
    """Ray, if it is there and new enough.

    Raises
    ------
    OptionError
    """
    try:
        import ray
    except ImportError as error:
        raise OptionError("Ray for on='ray'", "no such package", "pip install 'servegen-gpu[ray]'") from error
    version = str(getattr(ray, "__version__", "no version"))
    numbers = [int(number) if number.isdigit() else 0 for number in version.split(".")[:2]]
    if tuple(numbers) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise OptionError(f"Ray {oldest} or later", version, f"pip install --upgrade 'ray>={oldest}'")
    return ray


def tasks(
    function: Callable[[S, I], T], shared: S, items: Iterable[I], workers: int | None = None
) -> Iterator[tuple[I, T]]:
    """``function(shared, item)`` of every item, each a task of one processor; items and results as they are finished.

    Tasks may run more than once: a worker that seems lost may still finish its own.

    Parameters
    ----------
    function : function of `shared` and an item
        Of a module, so that workers import it.
    shared : object
        Sent once, to the cluster's object store.
    items : iterable
        Taken from as tasks are finished.
    workers : int, optional
        Tasks at a time; by default as many as the cluster has processors, and as many more that wait for one.

    Raises
    ------
    OutputError
        If workers are lost again and again.
    Exception
        What the function raised; other tasks are cancelled.
    """
    ray = import_ray()
    own = not ray.is_initialized()
    if own:
        try:
            _knock(os.environ.get("RAY_ADDRESS", ""))
            ray.init(log_to_driver=False)
        except Exception as error:  # a ConnectionError, ValueError or RuntimeError, as versions have it
            got = f"{type(error).__name__}: {(str(error).strip() or 'no more').splitlines()[0][:200]}"
            fix = "check RAY_ADDRESS, or unset it for a cluster on this machine alone"
            raise OptionError("a Ray cluster", got, fix) from error
    try:
        yield from _tasks(ray, function, ray.put(shared), iter(items), workers)
    finally:
        if own:
            ray.shutdown()


def _knock(address: str) -> None:
    """Fail at once where nobody listens at an address: Ray tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit() and "://" not in host):  # such as "auto" or "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        raise ConnectionError(f"nobody listens at {address} ({error.strerror or error})") from None


def _tasks(
    ray: Any, function: Callable[[S, I], T], shared: Any, items: Iterator[I], workers: int | None
) -> Iterator[tuple[I, T]]:
    most = workers or 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
    work = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_alone)
    running: dict[Any, tuple[I, int]] = {}
    try:
        while True:
            for item in islice(items, most - len(running)):
                running[work.remote(function, shared, item)] = (item, 1)
            if not running:
                return
            for done in ray.wait([*running], num_returns=1)[0]:
                item, tries = running.pop(done)
                try:
                    found = ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, Exception) else error from None
                except ray.exceptions.RaySystemError as error:
                    got = f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:200]}"
                    fix = "install this package, and the modules of your own functions, on all machines"
                    raise OptionError("work that every machine of the cluster can load", got, fix) from error
                except ray.exceptions.RayError as error:
                    if tries == TRIES:
                        got = f"{type(error).__name__} {tries} times"
                        fix = "look at the cluster and at the memory of a worker; what is finished is kept"
                        raise OutputError("workers that live", got, fix) from error
                    running[work.remote(function, shared, item)] = (item, tries + 1)
                else:
                    yield item, found
    finally:
        for left in running:
            with suppress(Exception):
                ray.cancel(left)
        if running:
            with suppress(Exception):
                ray.wait([*running], num_returns=len(running), timeout=CLEAR_S)


def in_order(function: Callable[[S, I], T], shared: S, items: Iterable[I], workers: int | None = None) -> Iterator[T]:
    """The results of `tasks` in the order of the items, which must differ."""
    waiting: list[I] = []
    found: dict[I, T] = {}

    def noted() -> Iterator[I]:
        for item in items:
            waiting.append(item)
            yield item

    for item, result in tasks(function, shared, noted(), workers):
        found[item] = result
        while waiting and waiting[0] in found:
            yield found.pop(waiting.pop(0))


def _alone(function: Callable[[S, I], T], shared: S, item: I) -> T:
    """A task has one processor."""
    with single_threaded():
        return function(shared, item)
