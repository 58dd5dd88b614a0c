"""The environment of a log: a random factor that all its requests share, found from counts of cells.

Notation: b(s) what is expected in cell s, c(s) what was counted, M the factor, v = Var M, z the Gaussian process behind
it, Q its quantile function, so that M = Q(Φ(z)) (`law/environment.py`). Then

    Cov(c(s), c(s + l)) = b(s) b(s + l) Cov M(l) + what a renewal process has anyway,     Cov M(l) = H(Cor z(l)),

with H the sum of Q's squared Hermite coefficients times powers, and Cor z(l) = Σ_k w_k ρ_k(l) of the octaves' kernels.
So v comes from the counts' variance, Q from their distribution, and w from their autocovariances by non-negative least
squares.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, optimize, special

from servegen_gpu.clients.stated.environment import Environment
from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.count_law import SETTLED, count_covariance, count_variance
from servegen_gpu.fitting.margin import fit_margin, with_variance
from servegen_gpu.fitting.octaves import BLOCKS, Link, kernels, mean_variance, octave_weights, over_cells, some_lags

Array = NDArray[np.float64]

LEAST_REQUESTS = 0.3
"""A cell needs as many: at 0.08 variances are off by 29 to 45 %, at 0.39 by 7 to 11 %."""
CELLS_S = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 25, 30, 40, 50, 60, 75, 100, 120, 150, 200, 300, 600)
"""All that divide windows of 600 s."""
FEWEST_REQUESTS = 250
"""Below it, the noise of a variance is larger than most variances."""
FEWEST_CELLS = 64
LAG_BINS_PER_OCTAVE = 4
FALSE_ALARM = 1e-3
"""How often an environment is found where there is none."""
LEAST_EXCESS = 0.05
"""Power above chance, in some band of frequencies, that is worth an environment."""
TREND_DEGREE = 5
SLOWEST = 8
"""Half waves per log from which on variation is looked for: slower ones are a drift of the rate."""
RIDGE, START_WEIGHT, LEAST_WEIGHT = 0.02, 0.02, 0.003
"""Of the search for octaves: pull to what was found, what every octave starts with, and what is left out at its end."""
MOST_MEAN_SHARE = 0.3
"""Of the variance: the most that the log's own mean may have taken away."""


@dataclass(frozen=True, eq=False)
class EnvironmentFit:
    """What was found.

    Attributes
    ----------
    environment : Environment
    variance : float
        Of the factor.
    moment_variance, variance_error : float
        What counts of cells show, and its standard error by leaving out sixteenths of the log; `variance` adds what
        the log's own mean took away.
    weight_errors : dict of int to float
        Standard errors of the octaves' weights.
    margin_from : str
        Where the margin comes from: `MarginFit.how`.
    notes : tuple of str
        What was dropped or replaced, a sentence each.
    """

    environment: Environment
    variance: float
    moment_variance: float
    variance_error: float
    weight_errors: dict[int, float]
    margin_from: str
    notes: tuple[str, ...]
    _link: Link = field(repr=False)

    def window_variance(self, window_s: float) -> float:
        """Variance of the factor's mean over windows."""
        environment = self.environment
        return mean_variance(self._link, environment.octaves, max(round(window_s / environment.cell_s), 1))

    def dispersion(self, window_s: float, mean: float | Array, shape: float = 1.0) -> Array:
        """Index of dispersion of counts of windows, in which `mean` requests are expected, float64[means].

        Pass it as `chance` to `window_rates`.
        """
        mean = np.asarray(mean, np.float64)
        own = count_variance(np.maximum(mean, 1e-9), shape) / np.maximum(mean, 1e-9)
        return np.asarray(own + mean * self.window_variance(window_s))


def choose_cell(requests: int, span_s: float, tick_us: int = 1, window_s: int = 600) -> float | None:
    """The shortest cell, s, whose counts say something: at least `LEAST_REQUESTS`, whole ticks, a part of a window.

    Returns
    -------
    float or None
        None if even a window has too few, or there would be fewer than `FEWEST_CELLS`.
    """
    for cell_s in CELLS_S:
        on_ticks = tick_us < 1_000 or (cell_s * 1_000_000) % tick_us == 0
        if window_s % cell_s == 0 and on_ticks and requests / span_s * cell_s >= LEAST_REQUESTS:
            return float(cell_s) if span_s / cell_s >= FEWEST_CELLS else None
    return None


def cell_counts(arrival_us: NDArray[np.int64], begin_us: int, span_s: float, cell_s: float) -> NDArray[np.int64]:
    """Requests of each whole cell of a log, int64[cells]."""
    cells = int(span_s / cell_s + 1e-9)
    cell = (arrival_us - begin_us) // round(cell_s * 1e6)
    return np.bincount(cell[cell < cells], minlength=cells)


def fit_environment(
    counts: NDArray[np.int64],
    base: Array | None,
    cell_s: float,
    shape: float = 1.0,
    longest_s: float | None = None,
) -> EnvironmentFit | None:
    """Find the environment of a log.

    Parameters
    ----------
    counts : int64[cells]
        Requests in each cell.
    base : float64[cells] or None
        What is expected in each, such as the rate of its window times `cell_s`; by default their mean.
    cell_s : float
        Length of a cell: see `choose_cell`.
    shape : float
        Of the gaps at a constant rate; 1 / CV² of families other than Gamma.
    longest_s : float, optional
        Longest lattice step of an octave; by default an eighth of the log. Slower changes are for rates by window:
        an octave says that they come at random.

    Returns
    -------
    EnvironmentFit or None
        None where counts vary no more than chance and a smooth drift of the rate make them, or there are too few:
        1 log in 1,000 without an environment is said to have one.

    Raises
    ------
    OptionError
        If `base` is not of the same length, or not above 0.
    """
    cells = len(counts)
    constant = base is None
    base = np.full(cells, counts.mean() if cells else 0.0) if base is None else np.asarray(base, np.float64)
    if len(base) != cells or (cells and not constant and not base.min() > 0):
        raise OptionError("an expected count above 0 for every cell", f"{len(base)} for {cells} cells", "fix base")
    if cells < FEWEST_CELLS or counts.sum() < FEWEST_REQUESTS or not varies(counts, base, shape):
        return None
    constant = constant or bool(np.ptp(base) <= 1e-9 * base.mean())
    longest = (cells / 8 if longest_s is None else min(longest_s / cell_s, cells / 3)) * (1 + 1e-9)
    octaves = tuple(range(int(np.log2(max(longest, 1.0))) + 1))
    lags, emp, apart = _autocovariances(counts, base, shape, min(2 << octaves[-1], cells // 3))
    moment, error = float(emp[0]), _jackknife_error(apart[:, 0])
    if not moment > 0:
        return None

    notes = []
    fit = fit_margin(counts, base, moment, shape)
    margin = fit.margin
    if fit.how.endswith("gamma"):
        notes.append(
            f"The likeliest distribution of the factor has a variance of {fit.variance:.3g}, counts say {moment:.3g}: "
            f"it is taken as {fit.how}."
        )
    taken = 0.0
    for _ in range(3 if constant else 1):
        link = Link.of(margin)
        found, errors = octave_weights(lags[1:], emp[1:] + taken, apart[:, 1:] + taken, link, octaves)
        if constant:
            # the log's mean is taken as that of the factor: what it varies by is missing from all covariances
            taken = min(mean_variance(link, found, cells), MOST_MEAN_SHARE * moment)
            margin = with_variance(fit.margin, moment + taken)
    dropped = [k for k in octaves if k not in found]
    if dropped:
        steps = ", ".join(f"{cell_s * 2.0**k:g}" for k in dropped)
        notes.append(f"variation over times of {steps} s cannot be told from chance and is left out of the environment")
    return EnvironmentFit(
        environment=Environment(margin, found, cell_s),
        variance=moment + taken,
        moment_variance=moment,
        variance_error=error,
        weight_errors=errors,
        margin_from=fit.how,
        notes=tuple(notes),
        _link=Link.of(margin),
    )


def varies(counts: NDArray[np.int64], base: Array, shape: float = 1.0, *, detrend: bool = True) -> bool:
    """Whether counts vary more than a renewal process of a smoothly drifting rate does.

    Their power is compared with that of chance in bands of frequencies an octave wide. A smooth trend is taken out, and
    the slowest waves are left out: they are a drift.
    """
    cells, mean = len(counts), float(base.mean())
    x, level = (counts - base) / np.sqrt(base), base / mean
    if detrend:
        waves, _ = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1.0, 1.0, cells), TREND_DEGREE))
        trend = waves @ (waves.T @ x)
        x, level = x - trend, level * np.maximum(1.0 + trend / np.sqrt(base), 0.0)
    chance = np.ones(cells)
    if shape != 1.0:
        lags = np.arange(min(cells, int(np.ceil(SETTLED / (shape * mean))) + 2))
        own = np.zeros(cells + 1)
        own[lags] = count_covariance(mean, lags, shape) / mean
        chance = np.maximum(fft.dct(own, type=1)[:cells], 0.01)
    power = fft.dct(x, norm="ortho") ** 2 / chance
    edges = [SLOWEST if detrend else 1]
    while edges[-1] * 2 < cells:
        edges.append(edges[-1] * 2)
    # powers of counts that are not normal, or whose rate drifts, have more spread
    more, uneven = 1.0 / (min(shape, 1.0) * mean * cells), float((level**2).mean() / level.mean() ** 2)
    for low, high in itertools.pairwise([*edges, cells]):
        ratio = float(power[low:high].mean())
        df = 2.0 / (2.0 * uneven / (high - low) + more)
        chance_of_it = float(special.chdtrc(df, df * ratio))
        if chance_of_it < FALSE_ALARM / len(edges) and ratio > 1.0 + LEAST_EXCESS:
            return True
    return False


def _autocovariances(
    counts: NDArray[np.int64], base: Array, shape: float, longest: int
) -> tuple[NDArray[np.int64], Array, Array]:
    """Of the factor: middles of bins of lags from 0 on, values, and values without each block of the log in turn."""
    cells = len(counts)
    mean = float(base.mean())
    edges = _lag_edges(longest)
    x = counts - base
    size = -(-cells // BLOCKS)
    own = count_covariance(mean, np.arange(longest + 1), shape)
    own = np.concatenate(([0.0], own[1:] / mean**2))
    products, weights = np.zeros((BLOCKS, len(edges))), np.zeros((BLOCKS, len(edges)))
    long = fft.next_fast_len(size + longest, real=True)
    noise = count_variance(base, shape)
    constant = bool(np.ptp(base) <= 1e-9 * mean)
    for g in range(BLOCKS):
        begin, end = g * size, min((g + 1) * size, cells)
        if end <= begin:
            continue
        ahead = min(end + longest, cells)
        at = np.arange(longest + 1)
        product = _lagged(x[begin:end], x[begin:ahead], longest, long)
        if constant:
            weight = mean * mean * np.clip(np.minimum(end, cells - at) - begin, 0, None).astype(np.float64)
        else:
            weight = np.maximum(_lagged(base[begin:end], base[begin:ahead], longest, long), 0.0)
        product[0] -= noise[begin:end].sum()
        product -= own * weight
        products[g] = np.add.reduceat(product, edges)
        weights[g] = np.add.reduceat(weight, edges)
    lags = (edges + np.append(edges[1:], longest + 1) - 1) // 2
    total, weight = products.sum(axis=0), weights.sum(axis=0)
    without = weight - weights
    apart = np.divide(total - products, without, out=np.tile(total / weight, (BLOCKS, 1)), where=without > 0)
    return lags, total / weight, apart


def _lag_edges(longest: int) -> NDArray[np.int64]:
    """Where bins of lags begin: one each at first, then a few an octave."""
    count = int(LAG_BINS_PER_OCTAVE * np.log2(max(longest, 2))) + 1
    edges = np.unique(np.rint(np.geomspace(1, longest, count)).astype(np.int64))
    return np.concatenate(([0], edges))


def _lagged(x: Array, ahead: Array, longest: int, long: int) -> Array:
    """Σ_s x(s) ahead(s + l) for lags from 0 to `longest`."""
    found: Array = fft.irfft(np.conj(fft.rfft(x, long)) * fft.rfft(ahead, long), long)[: longest + 1]
    return found


def _jackknife_error(apart: Array) -> float:
    return float(np.sqrt((BLOCKS - 1) / BLOCKS * ((apart - apart.mean()) ** 2).sum()))


def with_window_variances(fit: EnvironmentFit, cells: NDArray[np.int64], variances: Array) -> EnvironmentFit:
    """The environment, moved until its means over windows have given variances, as nearly as octaves allow.

    Parameters
    ----------
    fit : EnvironmentFit
    cells : int64[n]
        Lengths of windows in cells, ascending from 1.
    variances : float64[n]
        Above 0.
    """
    margin = with_variance(fit.environment.margin, float(variances[0]))
    link = Link.of(margin)
    # octaves that are slower than the longest window keep what they have
    octaves = tuple(range(max(int(np.log2(cells[-1])), *fit.environment.octaves) + 1))
    lags = [some_lags(int(n)) for n in cells]
    kernel = [kernels(at, octaves) for at in lags]

    def weights(x: Array) -> Array:
        heavy = np.exp(x - x.max())
        return np.asarray(heavy / heavy.sum())

    def off(x: Array) -> Array:
        w = weights(x)
        model = [over_cells(link.covariance(k @ w), at, int(n)) for k, at, n in zip(kernel, lags, cells, strict=True)]
        ridge = RIDGE * (x - start)
        return np.concatenate((np.log(np.maximum(model, 1e-12) / variances), ridge))

    start = np.log([fit.environment.octaves.get(k, 0.0) + START_WEIGHT for k in octaves])
    found = weights(optimize.least_squares(off, start, max_nfev=60).x)
    kept = {k: float(w) for k, w in zip(octaves, found, strict=True) if w >= LEAST_WEIGHT}
    environment = replace(fit.environment, margin=margin, octaves=kept)
    return replace(fit, environment=environment, variance=margin.variance, _link=link)
