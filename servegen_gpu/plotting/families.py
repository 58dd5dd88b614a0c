"""Families of inter-arrival times and lengths, fitted by maximum likelihood to values that were counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.histograms import Counts, gap_of_bin
from servegen_gpu.plotting.drawing import time_text

Floats = NDArray[np.float64]

LEAST_SHAPE, MOST_SHAPE = 1e-3, 1e3
STEPS = 60
"""Bisections of the range of shapes."""


@dataclass(frozen=True, eq=False)
class Family:
    """A family with its parameters.

    Attributes
    ----------
    name : str
    about : str
        Its parameters in words.
    at_most : function of float64[n]
        Share of values up to each.
    ks : float
        Largest distance of the distribution functions from what it was fitted to.
    """

    name: str
    about: str
    at_most: Callable[[Floats], Floats]
    ks: float


def gap_families(gaps: Counts) -> tuple[Family, ...]:
    """Exponential, Gamma and Weibull inter-arrival times in seconds; none with fewer than two different ones.

    Parameters
    ----------
    gaps : Counts
        By `gap_bin`; those of 0 are left out.
    """
    bins, counts = gaps.points()
    bins, counts = bins[bins > 0], counts[bins > 0]
    if len(bins) < 2:
        return ()
    x, weight = gap_of_bin(bins) / 1e6, counts / counts.sum()
    from scipy import special

    mean, log_mean = float(weight @ x), float(weight @ np.log(x))
    shape = _gamma_shape(np.log(mean) - log_mean)
    power = _weibull_shape(x, weight, log_mean)
    scale = float((weight @ x**power) ** (1 / power))
    laws: list[tuple[str, str, Callable[[Floats], Floats]]] = [
        ("exponential", f"mean {time_text(mean)}", lambda at: np.asarray(-np.expm1(-at / mean))),
        ("gamma", f"shape {shape:.3g}", lambda at: np.asarray(special.gammainc(shape, at * shape / mean), np.float64)),
        ("weibull", f"shape {power:.3g}", lambda at: np.asarray(-np.expm1(-((at / scale) ** power)))),
    ]
    return tuple(Family(name, about, law, _ks(law, x, weight)) for name, about, law in laws)


def length_family(lengths: Counts, name: str) -> Family | None:
    """A family of lengths in tokens: exponential for outputs and answers, Pareto and log-normal together for others.

    Parameters
    ----------
    lengths : Counts
        Those of 0 are left out.
    name : str
        Of the column. None is fitted to fewer than ten different lengths.
    """
    values, counts = lengths.points()
    values, counts = values[values > 0], counts[values > 0]
    if len(values) < 10:
        return None
    x, weight = values.astype(np.float64), counts / counts.sum()
    if name not in ("output_tokens", "answer_tokens"):
        from servegen_gpu.clients.stated.distributions import LogNormal, Mixture, Pareto
        from servegen_gpu.fitting.mixture import fit_mixture

        found = fit_mixture(values, counts)
        parts = [LogNormal(median=found.median, sigma=found.sigma), Pareto(alpha=found.alpha, scale=found.scale)]
        mixture = Mixture(parts, [found.body_weight, 1 - found.body_weight])
        about = (
            f"median {found.median:,.0f}, σ {found.sigma:.2f}; tail {1 - found.body_weight:.0%}, α {found.alpha:.2f}"
        )
        return Family("log-normal + Pareto", about, lambda at: mixture.at_most(at, 1), found.ks)
    mean = float(weight @ x)

    def law(at: Floats) -> Floats:
        return np.asarray(-np.expm1(-at / mean))

    return Family("exponential", f"mean {mean:,.0f}", law, _ks(law, x + 0.5, weight))


def _ks(law: Callable[[Floats], Floats], x: Floats, weight: Floats) -> float:
    """Largest distance of distribution functions, at counted values and just before them."""
    upto = np.cumsum(weight)
    expected = law(x)
    return float(np.maximum(np.abs(upto - expected), np.abs(upto - weight - expected)).max())


def _gamma_shape(gap: float) -> float:
    """Shape whose ln k - ψ(k) is the logarithm of the mean less the mean of logarithms."""
    from scipy import special

    return _root(lambda shape: float(np.log(shape) - special.digamma(shape)) - gap)


def _weibull_shape(x: Floats, weight: Floats, log_mean: float) -> float:
    log = np.log(x)
    scaled = log - log.max()

    def falls(shape: float) -> float:
        powers = weight * np.exp(shape * scaled)
        return 1 / shape + log_mean - float(powers @ log / powers.sum())

    return _root(falls)


def _root(falls: Callable[[float], float]) -> float:
    """Where a falling function of a shape is 0, or the end of the range that is nearest to it."""
    low, high = np.log(LEAST_SHAPE), np.log(MOST_SHAPE)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(float(np.exp(middle))) > 0 else (low, middle)
    return float(np.exp((low + high) / 2))
