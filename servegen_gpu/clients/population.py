"""Built-in populations: any number of clients from the numbers of a preset, with nothing to download.

Client 0 is the largest, client 1 the next, and so on. What a client is like depends on the seed and its id only; the
number of clients changes nothing but the common factor that brings all of them to the preset's total rate.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.arrivals import cv_of
from servegen_gpu.clients.distributions import LogNormal, Mixture, Pareto
from servegen_gpu.clients.diurnal import Diurnal, settled
from servegen_gpu.clients.lengths import WORDS, LengthTables
from servegen_gpu.clients.pool import (
    DAY_S,
    FAMILY_NAMES,
    FIELDS,
    MAX_CLIENT_ID,
    RATIO_STEPS,
    ClientPool,
)
from servegen_gpu.clients.presets import Preset, Rhythm, Tokens, deepseek_r1
from servegen_gpu.clients.tabulate import Table, table_of_bins
from servegen_gpu.errors import OptionError

_BY_NAME = {preset.name: preset for preset in (deepseek_r1.PRESET,)}
PRESETS = tuple(_BY_NAME)
"""Names of the workloads that `population` can make."""

WINDOW_S = 600
WEEK_S = 7 * DAY_S
HEAD = 256
"""How many of the largest clients share out the kinds of behaviour evenly among themselves."""
EDGES = 700
"""Bins of a length table before equal ones are joined; above about 80 tokens a bin is 1.6 % wide."""


def population(workload: str = "deepseek-r1", clients: int | None = None, seed: int = 0) -> ClientPool:
    """Make a population of clients: one day of 144 windows, rates of all clients adding up to the published total.

    Parameters
    ----------
    workload : str
        One of `PRESETS`.
    clients : int, optional
        How many; the published number if left out (25,913 for deepseek-r1).
    seed : int
        From 0 to 2**64 - 1: decides which client behaves how. Sampling has a seed of its own.
    """
    if workload not in _BY_NAME:
        raise OptionError(f"a built-in workload: {', '.join(PRESETS)}", repr(workload), "choose one of them")
    preset = _BY_NAME[workload]
    n = preset.clients if clients is None else clients
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or not 1 <= n <= MAX_CLIENT_ID:
        raise OptionError(f"from 1 to {MAX_CLIENT_ID:,} clients", repr(clients), "change clients")
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 1 << 64:
        raise OptionError("a seed from 0 to 2**64 - 1", repr(seed), "change seed")

    ids = np.arange(n, dtype=np.int64)
    weight = _weights(preset, int(n))
    gaps, styles, rhythms = preset.gaps, preset.styles, preset.rhythms
    sorts = ([g.share for g in gaps], [s.share for s in styles], [r.share for r in rhythms])
    gap, style, rhythm = (_kinds(share, preset, ids, int(seed), lane) for lane, share in enumerate(sorts))

    # one profile for every combination: gaps x styles x rhythms
    shape = (len(gaps), len(styles), len(rhythms))
    g, s, r = (axis.ravel() for axis in np.indices(shape))
    rate = np.array([_day(rhythm) for rhythm in rhythms])[r]
    tables = _tables(preset)

    def every_window(by_kind: list[float]) -> NDArray[np.float64]:
        return np.repeat(np.array(by_kind)[g][:, None], rate.shape[1], axis=1)

    fields = len(FIELDS["reason"])
    return ClientPool(
        name=preset.name,
        category="reason",
        window_s=WINDOW_S,
        first_window=0,
        client_ids=ids,
        profile=np.ravel_multi_index((gap, style, rhythm), shape).astype(np.int32),
        rate_factor=weight * (preset.requests_per_week / WEEK_S / math.fsum(weight.tolist())),
        rate_rps=rate,
        cv=every_window([cv_of(FAMILY_NAMES.index(kind.family), kind.shape) for kind in gaps]),
        family=every_window([FAMILY_NAMES.index(kind.family) for kind in gaps]).astype(np.uint8),
        shape=every_window([kind.shape for kind in gaps]),
        occupancy=np.ones_like(rate),
        table=np.repeat((s[:, None] * fields + np.arange(fields))[:, None, :], rate.shape[1], axis=1).astype(np.int32),
        tables=tables,
        measured=np.zeros(len(rate), np.bool_),
    )


def _weights(preset: Preset, clients: int) -> NDArray[np.float64]:
    """Rates of clients but for a common factor, float64[clients], largest first."""
    return settled(np.power(np.arange(1.0, clients + 1) + preset.head_offset, -preset.head_exponent))


def _kinds(shares: list[float], preset: Preset, ids: NDArray[np.int64], seed: int, lane: int) -> NDArray[np.int64]:
    """Which kind each client is, int64[clients], so that kinds get their shares of the requests.

    Ten clients make half of the requests, so independent draws would leave the mix of the whole to a few throws of
    the dice. The head is therefore drawn one after the other, each kind by how much it lacks of what it is due.
    """
    ends = np.cumsum(shares)
    uniform = _uniform(seed, lane, np.arange(max(len(ids), HEAD)))
    kinds = np.searchsorted(ends[:-1], uniform, side="right")
    weight = _weights(preset, HEAD)
    due = np.zeros(len(shares))
    for i in range(HEAD):
        due += weight[i] * np.array(shares)
        lacking = np.cumsum(np.maximum(due, 0))
        kinds[i] = np.searchsorted(lacking[:-1], uniform[i] * lacking[-1], side="right")
        due[kinds[i]] -= weight[i]
    return kinds[: len(ids)]


def _uniform(seed: int, lane: int, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniforms in [0, 1) by seed, lane and client id: SplitMix64's finaliser, once for the key, once for the id."""
    key = _mix(_mix(np.array([seed], np.uint64)) + np.uint64(lane))
    return (_mix(key + ids.astype(np.uint64)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _day(rhythm: Rhythm) -> NDArray[np.float64]:
    """A day with a mean of 1, float64[windows], by the rate in the middle of each."""
    middle_s = (np.arange(DAY_S // WINDOW_S) + 0.5) * WINDOW_S
    return Diurnal(1.0, rhythm.swing, rhythm.peak_hour)(middle_s)


def _tables(preset: Preset) -> LengthTables:
    """Three tables a style, in the order of the fields: input, output, ratio."""
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for style in preset.styles:
        ratio = style.low_ratio_share * _beta(*preset.low_ratio)
        ratio += (1 - style.low_ratio_share) * _beta(*preset.high_ratio)
        words = np.rint(ratio / ratio.max() * WORDS).astype(np.int64)
        parts += [_lengths(style.input_tokens)[:2], _lengths(style.output_tokens)[:2], (np.arange(RATIO_STEPS), words)]
    offsets = np.cumsum([0] + [len(values) for values, _ in parts])
    values = np.concatenate([values for values, _ in parts])
    return LengthTables.from_weights(offsets, values, np.concatenate([weights for _, weights in parts]))


def _lengths(tokens: Tokens) -> Table:
    """A length: whole tokens from 1 to the maximum, wider bins where they are large."""
    last = np.unique(np.rint(np.geomspace(1, tokens.max, EDGES)).astype(np.int64))
    last = np.append(last[last < tokens.max - 1], [tokens.max - 1, tokens.max])  # what is cut, falls on one value
    body, tail = LogNormal(tokens.median, tokens.sigma), Pareto(tokens.tail_exponent, tokens.tail_from)
    law = Mixture((body, tail), (1 - tokens.tail_share, tokens.tail_share))
    return table_of_bins(lambda k: law.at_most(k, 1), last)


def _beta(a: float, b: float) -> NDArray[np.float64]:
    """A Beta distribution over the bins of a ratio, float64[501], by its density in their middle."""
    x = (np.arange(RATIO_STEPS) + 0.5) / RATIO_STEPS
    density = x ** (a - 1) * (1 - x) ** (b - 1)
    return np.asarray(density / density.sum())
