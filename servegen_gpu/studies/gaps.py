"""Pools whose clients are burstier, or more regular."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.stated.diurnal import settled
from servegen_gpu.request.families import EXPONENTIAL, FAMILIES, GAMMA, LOGNORMAL, WEIBULL, family_of
from servegen_gpu.studies.changed import changed

KNOTS = 1 << 13


def burstier(pool: ClientPool, factor: float) -> ClientPool:
    """The CV of the gaps of every client, in every window, times `factor`; kept to what its family can have.

    Families stay. Exponential gaps become Weibull ones, of which they are the case with a CV of 1: with the same random
    numbers, gaps move continuously as the CV leaves 1. Rates, and counts that are measured, stay too: measured clients
    are burstier inside their windows, unless they are sampled with ``counts="renewal"``. Environments are left alone.
    """
    if factor == 1:
        return pool
    active = pool.rate_rps > 0
    family = np.where(active & (pool.family == EXPONENTIAL), WEIBULL, pool.family).astype(np.uint8)
    shape = np.where(active & (pool.family == EXPONENTIAL), 1.0, pool.shape)
    for code, change in ((GAMMA, _gamma), (WEIBULL, _weibull), (LOGNORMAL, _lognormal)):
        mine = active & (family == code)
        if mine.any():
            least, most = family_of(code).shape_range
            shape[mine] = np.clip(settled(change(shape[mine], factor)), least, most)
    return changed(pool, family=family, shape=shape, cv=pool.cv * factor)


def _gamma(shape: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    return shape / factor**2


def _lognormal(sigma: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.log1p(np.expm1(sigma * sigma) * factor**2)))


def _weibull(shape: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Through a table of CVs: there is no formula, and halving takes long for many clients."""
    log_shape, log_cv = _weibull_cvs()
    log_of = np.interp(np.log(shape), log_shape, log_cv) + math.log(factor)
    return np.asarray(np.exp(np.interp(-log_of, -log_cv, log_shape)))


@lru_cache(maxsize=1)
def _weibull_cvs() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of shapes, ascending, and of their CVs; knots lie so that interpolation is off by less than 1e-5."""
    row = FAMILIES["weibull"]
    low, high = row.shape_range
    log_shape = np.linspace(math.log(low), math.log(high), KNOTS)
    return log_shape, np.array([math.log(row.cv_of(math.exp(x))) for x in log_shape])
