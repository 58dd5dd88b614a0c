"""Who sends requests: clients, and what each of them does in every window of the day.

A *client* points at a *profile* and scales its rate. A profile is a row of per-window tensors: rate, burstiness, and
which length distribution each field of a request is drawn from. Clients that behave alike share a profile, so
twenty thousand clones of one client cost twenty thousand pointers.

Axes: clients, profiles, windows (of the data, `window_s` seconds each), fields (of a request, in the order of
`FIELDS`), scalar fields (the leading ones, drawn once per request), correlations, tables and bins (of the length
distributions).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.client import Client, client_at
from servegen_gpu.clients.sums import order_free_sum
from servegen_gpu.errors import OptionError
from servegen_gpu.options import seconds
from servegen_gpu.request.schema import Schema, of
from servegen_gpu.request.tables import Tables

if TYPE_CHECKING:
    from servegen_gpu.clients.describe.cdfs import Cdfs, Per, Skew
    from servegen_gpu.clients.selection import Clients, Range, Windows
    from servegen_gpu.clients.stated.environment import Environment
    from servegen_gpu.clients.stated.turns import TurnModel

DAY_S = 86_400
MAX_CLIENT_ID = 2**31 - 1
MAX_CLIENTS = 10_000_000
"""That one call makes; the largest released workload has 25,913."""


AXES = (
    dict.fromkeys(("client_ids", "profile", "rate_factor"), ("clients",))
    | dict.fromkeys(("rate_rps", "cv", "family", "shape", "occupancy"), ("profiles", "windows"))
    | {"table": ("profiles", "windows", "fields")}
    | dict.fromkeys(
        ("measured", "correlation", "context_tokens", "system_tokens", "turn_model", "environment"), ("profiles",)
    )
    | {"correlations": ("correlations", "scalar fields", "scalar fields")}
)
"""Axes of the tensors of a pool."""

ADDED_LATER = {"system_tokens": 0, "environment": -1}
"""Arrays that a digest leaves out where they hold nothing but this."""

PastEnd = Literal["wrap", "end"]


@dataclass(frozen=True, eq=False)
class ClientPool:
    """An immutable set of clients with all that is needed to draw their requests.

    Attributes
    ----------
    name : str
        Workload name, such as ``"deepseek-r1"``.
    category : str
        ``"language"``, ``"reason"`` or ``"multimodal"``: decides the fields of a request.
    window_s : int
        Length of a window, seconds; at most 4,294, so that a window fits 32 bits of microseconds.
    first_window : int
        Number of the first window of the data on the time axis (its start divided by `window_s`).
    client_ids : int64[clients]
        Unique and ascending, 0 to 2**31 - 1. The id is a client's identity in the random stream.
    profile : int32[clients]
        Row of the profile tensors.
    rate_factor : float64[clients]
        Multiplies the profile's rate; positive.
    rate_rps : float64[profiles, windows]
        Requests per second; 0 where silent.
    cv : float64[profiles, windows]
        Listed coefficient of variation of inter-arrival times (description only; sampling uses `shape`).
    family : uint8[profiles, windows]
        ``EXPONENTIAL``, ``GAMMA``, ``WEIBULL``, or ``NO_FAMILY`` where silent.
    shape : float64[profiles, windows]
        Shape of the gap family; positive where active. The mean gap follows from the rate.
    occupancy : float64[profiles, windows]
        Part of the window that the run of requests covers, in (0, 1].
    table : int32[profiles, windows, fields]
        Row of `tables` that a field is drawn from; -1 where silent.
    tables : Tables
    measured : bool[profiles]
        True if rates are counts of a log (counts are then kept), False if they are intensities of a model.
    correlations : float64[correlations, scalar fields, scalar fields], optional
        Matrices of Spearman correlations between the fields of one request; none by default.
    correlation : int32[profiles], optional
        Row of `correlations`; -1, the default, where fields are independent.
    context_tokens : int32[profiles], optional
        Most tokens of a request's input and output together; 0, the default, where there is no limit.
    system_tokens : int32[profiles], optional
        Tokens that all inputs of a client begin with, for ids of blocks; 0 by default.
    turn_models : tuple of TurnModel, optional
        How clients hold conversations; none by default.
    turn_model : int32[profiles], optional
        Row of `turn_models`; -1, the default, where every request stands alone.
    environments : tuple of Environment, optional
        What moves the rates of many clients together; none by default.
    environment : int32[profiles], optional
        Row of `environments`; -1, the default, where nothing does.
    whole_rps : float64[windows], optional
        Total rate of the pool whose shares these clients keep, see `with_shares_of`; their own by default.
    """

    name: str
    category: str
    window_s: int
    first_window: int
    client_ids: NDArray[np.int64]
    profile: NDArray[np.int32]
    rate_factor: NDArray[np.float64]
    rate_rps: NDArray[np.float64]
    cv: NDArray[np.float64]
    family: NDArray[np.uint8]
    shape: NDArray[np.float64]
    occupancy: NDArray[np.float64]
    table: NDArray[np.int32]
    tables: Tables
    measured: NDArray[np.bool_]
    correlations: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    correlation: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    context_tokens: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    system_tokens: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    turn_models: tuple[TurnModel, ...] = ()
    turn_model: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    environments: tuple[Environment, ...] = ()
    environment: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    whole_rps: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        from servegen_gpu.clients.pool_check import check, fill_in

        fill_in(self)
        check(self)
        for array in self.arrays().values():
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.client_ids)

    def __repr__(self) -> str:
        span_s = self.windows * self.window_s
        span = f"{span_s / DAY_S:g} days" if span_s >= DAY_S else f"{span_s / 3600:g} h"
        return f"<ClientPool {self.name}: {len(self):,} clients ({self.category}), {span}>"

    def _repr_html_(self) -> str:
        from servegen_gpu.reporting.notebook import pool_html

        return pool_html(self)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All tensors by name; the tables as ``offsets``, ``values`` and ``thresholds``."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        named = {name: a for name, a in own.items() if isinstance(a, np.ndarray)}
        tables = {f.name: getattr(self.tables, f.name) for f in fields(self.tables)}
        return named | tables

    def header(self) -> dict[str, Any]:
        """What `arrays` does not say, but for conversations and environments: name, category and time axis."""
        return {name: getattr(self, name) for name in ("name", "category", "window_s", "first_window")}

    @classmethod
    def from_arrays(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> ClientPool:
        """The inverse of `header` and `arrays`."""
        columns: dict[str, Any] = dict(arrays)
        tables = Tables(*(columns.pop(f.name) for f in fields(Tables)))
        return cls(**(header | columns), tables=tables)

    @property
    def windows(self) -> int:
        """Number of windows in the data."""
        return int(self.rate_rps.shape[1])

    @property
    def schema(self) -> Schema:
        """What is drawn for a request, and what comes of it."""
        return of(self.category)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields of a request."""
        return self.schema.names

    @property
    def start_s(self) -> int:
        """Where the data begins, seconds."""
        return self.first_window * self.window_s

    @property
    def end_s(self) -> int:
        """Where the data ends, seconds."""
        return (self.first_window + self.windows) * self.window_s

    @property
    def period_windows(self) -> int:
        """After how many windows the data repeats when a span goes past its end: whole days where it has any."""
        per_day = DAY_S // self.window_s
        whole_days = DAY_S % self.window_s == 0 and self.windows >= per_day
        return self.windows // per_day * per_day if whole_days else self.windows

    @cached_property
    def own_rps(self) -> NDArray[np.float64]:
        """Total rate of all clients by window, float64[windows]; the same for any order of clients."""
        order = np.lexsort((self.rate_factor, self.profile))
        factor = np.bincount(self.profile[order], self.rate_factor[order], minlength=len(self.rate_rps))
        return order_free_sum(factor[:, None] * self.rate_rps)

    @property
    def total_rps(self) -> NDArray[np.float64]:
        """Total rate by window that a target rate is compared with, float64[windows]: `own_rps`, or `whole_rps`."""
        return self.own_rps if self.whole_rps is None else self.whole_rps

    def row(self, window: NDArray[np.int64]) -> NDArray[np.int64]:
        """Column of the tensors that serves an absolute window number, repeating whole days past the end."""
        return (np.asarray(window, np.int64) - self.first_window) % self.period_windows

    def client(self, client_id: int) -> Client:
        """One client by its id."""
        at = int(np.searchsorted(self.client_ids, client_id))
        if at == len(self) or self.client_ids[at] != client_id:
            raise OptionError(
                f"the id of one of the {len(self):,} clients ({self.client_ids[0]} to {self.client_ids[-1]})",
                f"client {client_id}",
                "list them with pool.client_ids",
            )
        return client_at(self, at)

    def select(self, client_ids: Iterable[int]) -> ClientPool:
        """The pool with only the given clients."""
        wanted = np.unique(np.fromiter(client_ids, np.int64))
        at = np.searchsorted(self.client_ids, wanted)
        known = at < len(self)
        known[known] = self.client_ids[at[known]] == wanted[known]
        if not known.all():
            raise OptionError(
                f"ids among the {len(self):,} clients of {self.name}",
                f"unknown ids {wanted[~known][:5].tolist()}",
                "list them with pool.client_ids",
            )
        return replace(self, client_ids=wanted, profile=self.profile[at], rate_factor=self.rate_factor[at])

    def with_shares_of(self, whole: ClientPool) -> ClientPool:
        """The pool, whose clients keep the shares that they have of the rate of another.

        Whatever rate is asked for, they send what they send in a trace of `whole` at that rate.

        Parameters
        ----------
        whole : ClientPool
            That these clients were chosen from, with the same windows.

        Examples
        --------
        >>> generate(pool.select([3, 7]).with_shares_of(pool), rate=100)  # two clients of a trace at 100 req/s
        """
        axis = [(of.window_s, of.first_window, of.windows) for of in (self, whole)]
        if axis[0] != axis[1] or (self.own_rps > whole.total_rps * (1 + 1e-9)).any():
            raise OptionError(
                "a pool with the same windows, of which these clients are a part",
                f"{whole!r} for {self!r}",
                "give the pool that they were chosen from",
            )
        return replace(self, whole_rps=whole.total_rps)

    def span(self, start_s: float | str, end_s: float | str, past_end: PastEnd = "wrap") -> ClientPool:
        """The pool cut to the windows that overlap [`start_s`, `end_s`), such as ``span("1h", "2h")``.

        Windows keep their place on the time axis, so sampling the cut gives the same requests as sampling the
        whole pool there. Only later turns of conversations that began before `start_s` are others: the cut repeats
        its own windows there.

        Parameters
        ----------
        start_s, end_s : float or str
            On the pool's own time axis: seconds, or text such as ``"1h30m"``.
        past_end : {"wrap", "end"}
            Past the end of the data, repeat whole days, or stop there.
        """
        start_s, end_s = (
            seconds(name, time) if isinstance(time, str) else time
            for name, time in (("start", start_s), ("end", end_s))
        )
        if not (np.isfinite(start_s) and np.isfinite(end_s) and self.start_s <= start_s < end_s):
            raise OptionError(
                f"{self.start_s} <= start < end (seconds)",
                f"start {start_s}, end {end_s}",
                "let it end after its start" if end_s <= start_s else "give a span inside or after the data",
            )
        first = int(start_s // self.window_s)
        stop = int(-(-end_s // self.window_s))
        if past_end == "end":
            stop = min(stop, self.first_window + self.windows)
            if stop <= first:
                raise OptionError(
                    f"a start before the end of the data at {self.end_s} s",
                    f"start {start_s} s",
                    "start earlier, or pass past_end='wrap' to repeat whole days",
                )
        rows = self.row(np.arange(first, stop))
        cut: dict[str, Any] = {
            name: getattr(self, name)[:, rows] for name in ("rate_rps", "cv", "family", "shape", "occupancy", "table")
        }
        if self.whole_rps is not None:
            cut["whole_rps"] = self.whole_rps[rows]
        return replace(self, first_window=first, **cut)

    def clone(self, n: int) -> ClientPool:
        """Each client `n` times at 1/`n` of its rate; ids are renumbered 0, 1, 2, …, clones side by side."""
        if n < 1 or n * len(self) > MAX_CLIENTS:
            raise OptionError(f"from 1 to {MAX_CLIENTS // max(len(self), 1):,} clones a client", f"{n}", "change n")
        return replace(
            self,
            client_ids=np.arange(n * len(self), dtype=np.int64),
            profile=np.repeat(self.profile, n),
            rate_factor=np.repeat(self.rate_factor / n, n),
        )

    def rescaled(self, factor: float, method: Literal["itt", "naive"] = "itt") -> ClientPool:
        """The pool at `factor` times its rates, up or down, as `servegen_gpu.rescale` does with a trace.

        Parameters
        ----------
        factor : float
            Above 0.
        method : {"itt", "naive"}
            ``itt`` begins more conversations, whose inter-turn times stay what they are, as ``scale=`` does.
            ``naive`` divides inter-turn times by `factor` as well (paper, section 5.2, Fig. 16). Without conversations
            both are the same.
        """
        from servegen_gpu.clients.scaled import rescaled_pool

        return rescaled_pool(self, factor, method)

    def filter(self, **ranges: Range) -> ClientPool:
        """The pool with only the windows whose figures all lie in closed ranges.

        Other windows fall silent, and clients that are silent throughout are left out. Without any range, only those
        clients are.

        Parameters
        ----------
        **ranges : (float or None, float or None)
            By the name of a figure, such as ``rate_rps``, ``cv``, ``mean_input_tokens``, ``max_output_tokens`` or
            ``p95_output_tokens`` (all of them: `servegen_gpu.clients.describe.figures`); None leaves an end open.

        Raises
        ------
        OptionError
            For unknown names, ranges that are none, and if nothing is left.

        Examples
        --------
        >>> pool.filter(cv=(2, None), mean_input_tokens=(100, 1000))
        """
        from servegen_gpu.clients.selection import filter_windows

        return filter_windows(self, ranges)

    def where(self, predicate: Callable[[Windows], Any]) -> ClientPool:
        """The pool with only the windows for which a predicate holds.

        Parameters
        ----------
        predicate : function of Windows
            Called once for all windows; returns bool[clients, windows], or what broadcasts to it. Every figure that
            it looks at takes 8 bytes a client and window; `filter` takes less where clients share profiles.

        Examples
        --------
        >>> pool.where(lambda w: (w.cv > 2) & (w.mean("input_tokens") < w.mean("output_tokens")))
        >>> pool.where(lambda w: w.rate_rps > 0.5 * w.rate_rps.max(axis=1, keepdims=True))
        """
        from servegen_gpu.clients.selection import where_windows

        return where_windows(self, predicate)

    def clients_where(self, predicate: Callable[[Clients], Any] | None = None, /, **ranges: Range) -> ClientPool:
        """The pool with only the clients, in all their windows, whose figures over the whole pool are as wanted.

        Parameters
        ----------
        predicate : function of Clients, optional
            Called once for all clients; returns bool[clients].
        **ranges : (float or None, float or None)
            Closed ranges by the name of a figure: ``activity`` (share of windows with requests), ``requests``,
            ``rate_rps`` (mean), ``peak_rps``, ``cv`` and ``mean_input_tokens`` and its like (weighted by requests),
            ``max_output_tokens`` and its like.

        Examples
        --------
        >>> pool.clients_where(activity=(0.9, None), requests=(1000, None))
        >>> pool.clients_where(lambda c: c.requests > 10 * np.median(c.requests))
        """
        from servegen_gpu.clients.selection import where_clients

        return where_clients(self, predicate, ranges)

    def head(self, k: int = 5) -> ClientPool:
        """The `k` clients with the smallest ids, all if they are fewer; of a population these are the largest."""
        if isinstance(k, bool) or not hasattr(k, "__index__") or not k >= 1:
            raise OptionError("a number of clients from 1 on", repr(k), "change k")
        return self.select(self.client_ids[:k])

    def top(self, k: int) -> ClientPool:
        """The `k` clients with the most requests, all active ones if they are fewer; of equals the smaller ids.

        >>> pool.span(36_000, 39_600).top(5)  # the largest of an hour
        """
        from servegen_gpu.clients.selection import by_requests

        return by_requests(self, k, largest=True)

    def bottom(self, k: int) -> ClientPool:
        """The `k` clients with the fewest requests, of those that send any; of equals the smaller ids."""
        from servegen_gpu.clients.selection import by_requests

        return by_requests(self, k, largest=False)

    def cdfs(self, per: Per = "window", statistics: Sequence[str] = ("mean", "p50", "p95", "p99")) -> Cdfs:
        """How rates, burstiness and lengths are distributed over clients.

        Rates are unweighted over the active clients; CV and statistics of length distributions are weighted by rate.

        Parameters
        ----------
        per : {"window", "span"}
            One CDF a window; or one over the whole pool: of the clients' mean rates, and of all windows of all
            clients for the rest. (A part of it: ``pool.span(a, b).cdfs("span")``.)
        statistics : sequence of str
            Of the length distributions: ``mean``, ``min``, ``max``, and quantiles such as ``p50``.
        """
        from servegen_gpu.clients.describe.cdfs import cdfs_of

        return cdfs_of(self, per, statistics)

    def skew(self) -> Skew:
        """Which share of the requests the largest clients send."""
        from servegen_gpu.clients.describe.cdfs import skew_of

        return skew_of(self)

    def with_conversations(self, model: TurnModel | str | os.PathLike[str] | None) -> ClientPool:
        """The pool with all of its clients holding conversations as a model says.

        Rates stay those of requests, later turns of conversations among them.

        Parameters
        ----------
        model : TurnModel, str, path or None
            A model; the name of a built-in workload with conversations, such as ``"deepseek-r1"``; a TOML file with
            the section ``[turns]``; or None for requests that all stand alone.

        Examples
        --------
        >>> load_servegen("ServeGen/data", "deepseek-r1").with_conversations("deepseek-r1")
        """
        from servegen_gpu.clients.stated.turns_toml import turn_model

        models = () if model is None else (turn_model(model),)
        return replace(self, turn_models=models, turn_model=np.full(len(self.rate_rps), len(models) - 1, np.int32))

    def system_prompts(self) -> dict[int, int]:
        """Tokens of the system prompts of clients that have one, by id, as `servegen_gpu.hash_ids` takes them."""
        tokens = self.system_tokens[self.profile]
        some = np.flatnonzero(tokens)
        return dict(zip(self.client_ids[some].tolist(), tokens[some].tolist(), strict=True))

    def with_environment(
        self, environment: Environment | str | os.PathLike[str] | None, clients: Iterable[int] | None = None
    ) -> ClientPool:
        """The pool whose clients' rates an environment moves together.

        Parameters
        ----------
        environment : Environment, str, path or None
            An environment; the name of a workload with one; a TOML file with ``[environment]``, or a saved profile;
            or None for none.
        clients : iterable of int, optional
            Ids of the clients that it moves; all others keep what moves them. All clients by default.

        Examples
        --------
        >>> pool.with_environment(Environment(Margin.gamma(variance=0.4), {2: 0.3, 6: 0.4, 9: 0.3}))
        """
        from servegen_gpu.clients.surroundings import with_environment

        return with_environment(self, environment, clients)

    def save(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Save the pool as a directory that a person can read and edit; see `servegen_gpu.save_profile`."""
        from servegen_gpu.clients.saved.profile import save_profile

        save_profile(self, path, **options)

    def digest(self) -> str:
        """SHA-256 over everything that sampling depends on, as hexadecimal text."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        hasher = hashlib.sha256(json.dumps(self.header(), sort_keys=True).encode())
        for name, array in sorted(self.arrays().items()):
            if name in ADDED_LATER and (array == ADDED_LATER[name]).all():
                continue  # so that pools that do without keep their digests
            hasher.update(f"{name} {array.dtype.str} {array.shape} ".encode())
            hasher.update(np.ascontiguousarray(array).data)
        for model in self.turn_models:
            hasher.update(model.digest())
        for environment in self.environments:
            hasher.update(environment.digest())
        return hasher.hexdigest()
