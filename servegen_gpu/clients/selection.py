"""Choosing windows and clients of a pool by what they are like; every choice gives a new pool.

A window that is not chosen falls silent, and a client that is silent throughout is left out. What remains keeps its
place on the time axis and its identity in the random stream: at its own rates it sends the very requests that it
sends in the whole pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.describe.figures import OF_WINDOWS, client_figure, field_figure, kinds, window_figure
from servegen_gpu.clients.pool import AXES, ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.options import whole
from servegen_gpu.request.families import FAMILY_NAMES

Range = tuple[float | None, float | None]
"""A closed range; None leaves an end open."""

SILENT = {"table": -1}
"""What tensors hold in a silent window, where it is not 0."""


@dataclass(frozen=True, eq=False)
class Windows:
    """All windows of all clients, for predicates: arrays [clients, windows], made when they are first used.

    ``windows["mean_input_tokens"]`` is any figure that `ClientPool.filter` knows, by its name. Lengths are NaN in
    silent windows, which are never chosen.

    Attributes
    ----------
    pool : ClientPool
    """

    pool: ClientPool

    @property
    def client(self) -> NDArray[np.int64]:
        """Ids of the clients, int64[clients, 1]."""
        return self.pool.client_ids[:, None]

    @property
    def start_s(self) -> NDArray[np.int64]:
        """Where windows begin, seconds, int64[1, windows]."""
        return ((self.pool.first_window + np.arange(self.pool.windows)) * self.pool.window_s)[None, :]

    @cached_property
    def rate_rps(self) -> NDArray[np.float64]:
        """Requests per second of a client, float64[clients, windows]; 0 where silent."""
        return np.asarray(self.pool.rate_rps[self.pool.profile] * self.pool.rate_factor[:, None])

    @cached_property
    def cv(self) -> NDArray[np.float64]:
        """Coefficient of variation of inter-arrival times, float64[clients, windows]."""
        return self.pool.cv[self.pool.profile]

    @cached_property
    def shape(self) -> NDArray[np.float64]:
        """Shape of the gap family, float64[clients, windows]."""
        return self.pool.shape[self.pool.profile]

    @cached_property
    def occupancy(self) -> NDArray[np.float64]:
        """Part of the window that the run of requests covers, float64[clients, windows]."""
        return self.pool.occupancy[self.pool.profile]

    @cached_property
    def family(self) -> NDArray[np.str_]:
        """Name of the gap family, str[clients, windows]: ``"Gamma"`` and the like, empty where silent."""
        return np.array(FAMILY_NAMES)[self.pool.family][self.pool.profile]

    def mean(self, field: str) -> NDArray[np.float64]:
        """Mean of a field, float64[clients, windows]."""
        return self[f"mean_{field}"]

    def max(self, field: str) -> NDArray[np.float64]:
        """Largest value of a field, float64[clients, windows]."""
        return self[f"max_{field}"]

    def quantile(self, field: str, level: float) -> NDArray[np.float64]:
        """Quantile of a field at a level above 0, at most 1, float64[clients, windows]."""
        return self[f"p{100 * level:.6f}".rstrip("0").rstrip(".") + f"_{field}"]

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name in OF_WINDOWS:
            array: NDArray[np.float64] = getattr(self, name)
            return array
        return window_figure(self.pool, name)[self.pool.profile]


@dataclass(frozen=True, eq=False)
class Clients:
    """All clients, for predicates: ``clients["activity"]`` and the like are float64[clients].

    Figures: ``activity``, ``requests``, ``rate_rps``, ``peak_rps``, ``cv``, and mean, min and max of fields such as
    ``mean_input_tokens``; what they mean: `client_figure`.

    Attributes
    ----------
    pool : ClientPool
    """

    pool: ClientPool

    @property
    def client(self) -> NDArray[np.int64]:
        """Ids of the clients, int64[clients]."""
        return self.pool.client_ids

    @property
    def activity(self) -> NDArray[np.float64]:
        """Share of windows with requests, float64[clients]."""
        return self["activity"]

    @property
    def requests(self) -> NDArray[np.float64]:
        """Number of requests, float64[clients]."""
        return self["requests"]

    @property
    def cv(self) -> NDArray[np.float64]:
        """Coefficient of variation of inter-arrival times, weighted by requests, float64[clients]."""
        return self["cv"]

    def mean(self, field: str) -> NDArray[np.float64]:
        """Mean of a field, weighted by requests (of items: by their number), float64[clients]."""
        return self[f"mean_{field}"]

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return client_figure(self.pool, name)


def filter_windows(pool: ClientPool, ranges: Mapping[str, Range]) -> ClientPool:
    """The windows whose figures all lie in their ranges: see `ClientPool.filter`."""
    for name in ranges:
        if name not in OF_WINDOWS:
            field_figure(pool, name, OF_WINDOWS)
    bounds = {name: _bounds(name, pair) for name, pair in ranges.items()}
    rate = bounds.pop("rate_rps", None)
    keep = pool.rate_rps > 0
    for name, (low, high) in bounds.items():
        keep = keep & _inside(window_figure(pool, name), low, high)
    if rate is None:
        profile, kind = np.unique(pool.profile, return_inverse=True)
        keep = keep[profile]
    else:
        first, kind, _ = kinds(pool)
        profile = pool.profile[first]
        keep = keep[profile] & _inside(pool.rate_rps[profile] * pool.rate_factor[first, None], *rate)
    return _keep(pool, kind, profile, keep, _said(ranges))


def where_windows(pool: ClientPool, predicate: Callable[[Windows], Any]) -> ClientPool:
    """The windows for which a predicate holds: see `ClientPool.where`."""
    mask = _mask(predicate, Windows(pool), (len(pool), pool.windows), "[clients, windows]")
    keep = np.broadcast_to(mask, (len(pool), pool.windows)) & (pool.rate_rps > 0)[pool.profile]
    return _keep(pool, np.arange(len(pool)), pool.profile, keep, _said({}, predicate))


def where_clients(
    pool: ClientPool, predicate: Callable[[Clients], Any] | None, ranges: Mapping[str, Range]
) -> ClientPool:
    """The clients for which a predicate holds and whose figures lie in their ranges: see `ClientPool.clients_where`."""
    every = Clients(pool)
    keep = np.ones(len(pool), np.bool_)
    for name, pair in ranges.items():
        figure = every[name]
        keep &= _inside(figure, *_bounds(name, pair))
    if predicate is not None:
        keep &= _mask(predicate, every, (len(pool),), "[clients]")
    if not keep.any():
        raise _nothing_left(pool, _said(ranges, predicate))
    return pool if keep.all() else pool.select(pool.client_ids[keep])


def by_requests(pool: ClientPool, k: int, *, largest: bool) -> ClientPool:
    """The `k` clients with the most or the fewest requests: see `ClientPool.top` and `ClientPool.bottom`."""
    if (number := whole(k)) is None or number < 1:
        raise OptionError("a number of clients from 1", repr(k), "change k")
    requests = client_figure(pool, "requests")
    order = np.argsort(-requests if largest else requests, kind="stable")  # ids ascend, so ties go by id
    chosen = order[requests[order] > 0][:number]
    if not len(chosen):
        raise _nothing_left(pool, "any requests")
    return pool.select(pool.client_ids[chosen])


def _bounds(name: str, pair: Any) -> tuple[float, float]:
    """A range as two numbers, infinite where open."""
    ends = tuple(pair) if isinstance(pair, tuple | list) else ()
    numbers = all(end is None or (isinstance(end, Real) and not isinstance(end, bool) and end == end) for end in ends)
    if len(ends) != 2 or not numbers:
        raise OptionError(f"{name} as a pair (low, high), with None for an open end", repr(pair), f"change {name}")
    low, high = ends
    low, high = -np.inf if low is None else float(low), np.inf if high is None else float(high)
    if low > high:
        raise OptionError(f"{name} as a range with low <= high", f"{pair!r}", "exchange its ends")
    return low, high


def _inside(figure: NDArray[np.float64], low: float, high: float) -> NDArray[np.bool_]:
    """Where a figure lies in a closed range; NaN does not."""
    return np.asarray((figure >= low) & (figure <= high))


def _mask(predicate: Any, every: Windows | Clients, shape: tuple[int, ...], axes: str) -> NDArray[np.bool_]:
    """What a predicate says, checked."""
    if not callable(predicate):
        raise OptionError(
            f"a function of {type(every).__name__}", repr(predicate), "pass a function, or ranges by name"
        )
    mask = np.asarray(predicate(every))
    from_right = zip(reversed(mask.shape), reversed(shape), strict=False)
    fits = mask.ndim <= len(shape) and all(n in (1, full) for n, full in from_right)
    if mask.dtype != np.bool_ or not fits:
        raise OptionError(
            f"a predicate that returns bool{axes} of shape {shape}",
            f"{mask.dtype} of shape {mask.shape}",
            "compare whole arrays, with & and | between comparisons",
        )
    return mask


def _said(ranges: Mapping[str, Range], predicate: object = None) -> str:
    """What was asked for, in words."""
    said = [f"{name} in [{low}, {high}]" for name, (low, high) in ranges.items()]
    return " and ".join([*said, *(["the predicate"] if predicate else [])]) or "any requests"


def _nothing_left(pool: ClientPool, said: str) -> OptionError:
    return OptionError(
        "a selection that leaves at least one client with requests",
        f"none of the {len(pool):,} clients of {pool.name} with {said}",
        "widen it",
    )


def _keep(
    pool: ClientPool, row: NDArray[np.intp], profile: NDArray[Any], keep: NDArray[np.bool_], said: str
) -> ClientPool:
    """The pool with only some of its windows.

    Parameters
    ----------
    row : int[clients]
        Row of `profile` and `keep` of each client.
    profile : int[rows]
        Row of the pool's tensors.
    keep : bool[rows, windows]
        Windows to keep; active ones only.
    said : str
        What was asked for.
    """
    alive = np.asarray(keep.any(axis=1))
    if not alive.any():
        raise _nothing_left(pool, said)
    clients = np.flatnonzero(alive[row])
    if np.array_equal(keep[alive], (pool.rate_rps > 0)[profile[alive]]):  # no window of them was left out
        return pool if len(clients) == len(pool) else pool.select(pool.client_ids[clients])

    # one profile for each old one and set of windows kept: bytes that sort by profile first
    bits = np.packbits(keep[alive], axis=1)
    number = profile[alive].astype(">u4").view(np.uint8).reshape(-1, 4)
    key = np.concatenate((number, bits), axis=1)
    _, first, renumbered = np.unique(key.view(f"V{key.shape[1]}").ravel(), return_index=True, return_inverse=True)
    old, kept = profile[alive][first], keep[alive][first]
    tensors: dict[str, Any] = {}
    for name, axes in AXES.items():
        if axes[0] == "clients":
            tensors[name] = getattr(pool, name)[clients]
        elif axes[0] == "profiles":
            array = getattr(pool, name)[old]
            if axes[1:2] == ("windows",):
                silent = array.dtype.type(SILENT.get(name, 0))
                array = np.where(kept.reshape(kept.shape + (1,) * (array.ndim - 2)), array, silent)
            tensors[name] = array
    place = np.cumsum(alive) - 1
    tensors["profile"] = renumbered[place[row[clients]]].astype(np.int32)
    return replace(pool, **tensors)
