"""How figures are distributed over the clients of a pool, and how unequal the clients are.

The figures are those of the paper's client pools: rates, unweighted over clients, and burstiness and length
statistics, weighted by rate; window by window or over the whole pool. Clients that share a profile are one step of a
CDF, with the weight of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from servegen_gpu.clients.describe.figures import STATISTICS, client_figure, kinds, window_figure
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.law.address import Purpose, derive_key, draw
from servegen_gpu.law.variates import uniform32

if TYPE_CHECKING:
    import pandas as pd

Per = Literal["window", "span"]
BLOCK_DRAWS = 1 << 16
TOTAL_TOLERANCE = 1e-6
"""How far from 1 the last of given cumulative probabilities may be."""


@dataclass(frozen=True, eq=False)
class Cdf:
    """A cumulative distribution in steps.

    Attributes
    ----------
    values : float64[n]
        Ascending; equal values may come in several steps.
    probabilities : float64[n]
        Cumulative, ascending, ending at 1.
    """

    values: NDArray[np.float64]
    probabilities: NDArray[np.float64]

    def quantile(self, level: ArrayLike) -> NDArray[np.float64]:
        """The first value whose cumulative probability reaches a level, for each of the levels."""
        at = np.searchsorted(self.probabilities, level)
        return np.asarray(self.values[np.minimum(at, len(self.values) - 1)])

    def at(self, value: ArrayLike) -> NDArray[np.float64]:
        """The probability of values up to and including `value`, for each of them."""
        return np.append(0.0, self.probabilities)[np.searchsorted(self.values, value, side="right")]

    def sample(self, n: int | None = None, *, seed: int = 0, uniforms: ArrayLike | None = None) -> NDArray[np.float64]:
        """Draw values: see `sample_from_cdf`."""
        return sample_from_cdf(self.values, self.probabilities, n, seed=seed, uniforms=uniforms)


@dataclass(frozen=True, eq=False)
class Cdfs:
    """CDFs of several figures, each over one or more spans of time.

    Attributes
    ----------
    start_s, end_s : int64[spans]
        The spans: windows of the pool, or the whole of it.
    offsets, values, probabilities : mappings from names of figures to arrays
        Span s of a figure has the steps ``offsets[s]:offsets[s + 1]`` (int64[spans + 1]) of its values and cumulative
        probabilities (float64[steps]); none where nobody is active.
    """

    start_s: NDArray[np.int64]
    end_s: NDArray[np.int64]
    offsets: Mapping[str, NDArray[np.int64]]
    values: Mapping[str, NDArray[np.float64]]
    probabilities: Mapping[str, NDArray[np.float64]]

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures: ``rate_rps``, ``cv``, ``mean_input_tokens`` …, as `ClientPool.filter` has them."""
        return tuple(self.values)

    def __repr__(self) -> str:
        return f"<Cdfs of {len(self.values)} figures over {len(self.start_s):,} spans>"

    def cdf(self, figure: str, start_s: float | None = None) -> Cdf:
        """One CDF: of a figure, in the span that holds the time `start_s` (may be left out if there is only one)."""
        if figure not in self.values:
            raise unknown("a figure", figure, self.figures)
        span = 0 if start_s is None else int(np.searchsorted(self.start_s, start_s, side="right")) - 1
        begin, end = int(self.start_s[0]), int(self.end_s[-1])
        if (start_s is None and len(self.start_s) > 1) or span < 0 or (start_s is not None and not start_s < end):
            raise OptionError(f"start_s as a time from {begin} to {end} s", repr(start_s), "name a window by its start")
        steps = slice(*self.offsets[figure][span : span + 2].tolist())
        if steps.start == steps.stop:
            raise OptionError("a span with requests", f"a silent one at {self.start_s[span]} s", "choose another")
        return Cdf(self.values[figure][steps], self.probabilities[figure][steps])

    def to_pandas(self) -> pd.DataFrame:
        """One row a step: ``figure`` (a category), ``start_s``, ``end_s``, ``value``, ``probability`` (cumulative)."""
        import pandas as pd

        code = np.repeat(np.arange(len(self.values), dtype=np.int32), [len(v) for v in self.values.values()])
        span = np.concatenate([np.repeat(np.arange(len(self.start_s)), np.diff(o)) for o in self.offsets.values()])
        return pd.DataFrame(
            {
                "figure": pd.Categorical.from_codes(code, categories=pd.Index(list(self.values))),
                "start_s": self.start_s[span],
                "end_s": self.end_s[span],
                "value": np.concatenate(list(self.values.values())),
                "probability": np.concatenate(list(self.probabilities.values())),
            }
        )


def cdfs_of(pool: ClientPool, per: Per = "window", statistics: Sequence[str] = STATISTICS) -> Cdfs:
    """CDFs of rates, burstiness and length statistics: see `ClientPool.cdfs`."""
    if per not in ("window", "span"):
        raise OptionError("per as 'window' or 'span'", repr(per), "change per")
    whole = per == "span"
    spans = 1 if whole else pool.windows
    used = np.unique(pool.profile)
    factor = np.bincount(pool.profile, pool.rate_factor)[used]
    window, row = np.nonzero((pool.rate_rps[used] > 0).T)
    weight = factor[row] * pool.rate_rps[used[row], window]
    lightest_first = np.argsort(weight, kind="stable")  # steps of equal value come in this order
    window, row, weight = window[lightest_first], row[lightest_first], weight[lightest_first]
    span = np.zeros_like(window) if whole else window

    found = {"rate_rps": _steps(*_rates(pool, whole), spans)}
    fields = [pool.schema.total] if pool.schema.items and "mean" in statistics else []
    names = [f"mean_{field}" for field in fields] + [f"{s}_{field}" for field in pool.fields for s in statistics]
    for name in ("cv", *names):
        found[name] = _steps(span, window_figure(pool, name)[used[row], window], weight, spans)
    start_s = (pool.first_window + np.arange(pool.windows, dtype=np.int64)) * pool.window_s
    return Cdfs(
        start_s=start_s[:1] if whole else start_s,
        end_s=(start_s[-1:] if whole else start_s) + pool.window_s,
        offsets={name: steps[0] for name, steps in found.items()},
        values={name: steps[1] for name, steps in found.items()},
        probabilities={name: steps[2] for name, steps in found.items()},
    )


def _rates(pool: ClientPool, whole: bool) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]:
    """Span, rate and number of clients, one entry a kind of client and window, or a kind where `whole` is true."""
    first, _, size = kinds(pool)
    if whole:
        rate = client_figure(pool, "rate_rps")[first]
        active = np.flatnonzero(rate > 0)
        return np.zeros_like(active), rate[active], size[active]
    rate = (pool.rate_rps[pool.profile[first]] * pool.rate_factor[first, None]).T
    window, kind = np.nonzero(rate > 0)
    return window, rate[window, kind], size[kind]


def _steps(
    span: NDArray[np.intp], value: NDArray[np.float64], weight: NDArray[Any], spans: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Entries as offsets, values and cumulative probabilities, the steps of one span behind those of another."""
    order = np.argsort(value, kind="stable")
    narrow = span.astype(np.uint16 if spans <= 1 << 16 else np.int64)[order]  # 16 bits are sorted by radix
    order = order[np.argsort(narrow, kind="stable")]
    size = np.bincount(span, minlength=spans)
    offsets = np.concatenate(([0], np.cumsum(size)))
    # spans are summed each for itself, so that none has the rounding errors of another
    filled = np.arange(size.max(initial=0)) < size[:, None]
    running = np.zeros(filled.shape)
    running[filled] = weight[order]
    np.cumsum(running, axis=1, out=running)
    total = running.max(axis=1, initial=0)
    return offsets, value[order], running[filled] / np.repeat(total, size)


@dataclass(frozen=True, eq=False)
class Skew:
    """How much of all requests the largest clients send.

    Attributes
    ----------
    client_ids : int64[clients]
        Largest first, equal ones by id.
    requests : float64[clients]
        Of each, falling.
    share : float64[clients]
        Of all requests, by the clients up to and including this one; 0 in a silent pool.
    """

    client_ids: NDArray[np.int64]
    requests: NDArray[np.float64]
    share: NDArray[np.float64]

    def __repr__(self) -> str:
        shares = f"the largest sends {self.of_top(1):.1%}, ten send {self.of_top(10):.1%}"
        return f"<Skew of {len(self.share):,} clients: {shares}>"

    def of_top(self, clients: int) -> float:
        """Share of the requests by that many of the largest clients."""
        return float(self.share[min(clients, len(self.share)) - 1]) if clients > 0 else 0.0

    def of_top_part(self, part: float) -> float:
        """Share of the requests by that part of the clients, 0 to 1, the largest first; linear between clients."""
        clients = np.arange(len(self.share) + 1) / len(self.share)
        return float(np.interp(part, clients, np.append(0.0, self.share)))

    def clients_for(self, share: float) -> int:
        """How many of the largest clients it takes for a share of the requests, 0 to 1; 0 in a silent pool."""
        if not self.share[-1]:
            return 0
        return min(int(np.searchsorted(self.share, share)) + 1, len(self.share))

    def to_pandas(self) -> pd.DataFrame:
        """One row a client: ``client``, ``requests``, ``client_share`` and ``request_share`` (both cumulative)."""
        import pandas as pd

        n = len(self.share)
        return pd.DataFrame(
            {
                "client": self.client_ids,
                "requests": self.requests,
                "client_share": np.arange(1, n + 1) / n,
                "request_share": self.share,
            }
        )


def skew_of(pool: ClientPool) -> Skew:
    """Who sends how much: see `ClientPool.skew`."""
    requests = client_figure(pool, "requests")
    order = np.argsort(-requests, kind="stable")
    running = np.cumsum(requests[order])
    return Skew(pool.client_ids[order], requests[order], running / running[-1] if running[-1] else running)


def sample_from_cdf(
    values: ArrayLike,
    probabilities: ArrayLike,
    n: int | None = None,
    *,
    seed: int = 0,
    uniforms: ArrayLike | None = None,
) -> NDArray[Any]:
    """Draw from a distribution in steps, by inversion: the first value whose cumulative probability reaches a uniform.

    Parameters
    ----------
    values : array[m]
        Ascending.
    probabilities : float64[m]
        Cumulative: never falling, up to 1.
    n : int, optional
        How many to draw from the package's own stream; the first of many are those of few.
    seed : int
        0 to 2**64 - 1.
    uniforms : float64[...], optional
        Numbers in [0, 1] to use instead: antithetic, stratified or quasi-random ones.

    Returns
    -------
    array[n], or of the shape of `uniforms`
    """
    x, p = np.asarray(values), np.asarray(probabilities, np.float64)
    if x.ndim != 1 or x.shape != p.shape or not len(x):
        raise OptionError(
            "as many values as probabilities, at least one", f"shapes {x.shape} and {p.shape}", "fix them"
        )
    if not (p[0] >= 0 and (np.diff(p) >= 0).all() and abs(p[-1] - 1) < TOTAL_TOLERANCE):
        raise OptionError("cumulative probabilities that never fall and end at 1", f"{p[:3]} … {p[-1]}", "sum them up")
    if (n is None) == (uniforms is None):
        raise OptionError("either n or uniforms", "both" if uniforms is not None else "neither", "give one of them")
    if uniforms is None:
        u = _uniforms(n, seed)
    else:
        u = np.asarray(uniforms, np.float64)
        if not ((u >= 0) & (u <= 1)).all():
            raise OptionError("uniforms from 0 to 1", f"{u[~((u >= 0) & (u <= 1))][0]}", "fix them")
    # neither a step of no probability at the front nor one at the end is ever drawn
    at = np.searchsorted(p, np.clip(u, np.nextafter(0, 1), p[-1]))
    return np.asarray(x[at])


def _uniforms(n: Any, seed: int) -> NDArray[np.float64]:
    """Uniforms 0 to n − 1 of a seed, float64[n]."""
    from servegen_gpu.options import integer

    n = integer("n", n, 2**34)
    key = derive_key(integer("seed", seed, 2**64 - 1))
    u = np.empty(n)
    for begin in range(0, n, BLOCK_DRAWS):
        end = min(begin + BLOCK_DRAWS, n)
        ordinal = np.arange(begin // 4, -(-end // 4), dtype=np.uint64)
        words = draw(np, key, Purpose.DESCRIPTION, ordinal=ordinal, client=0, window=0)
        u[begin:end] = uniform32(np, np.stack(words, axis=1).ravel())[: end - begin]
    return u
