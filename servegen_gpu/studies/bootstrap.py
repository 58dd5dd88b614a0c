"""Random choices of an analysis, by seed, and intervals from resamples."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.law.address import Purpose, derive_key, draw
from servegen_gpu.law.variates import uniform52

RESAMPLES = 1000
NAME = zlib.crc32(b"sensitivity")
"""Beside the names of parameters, under the purpose of studies."""


def uniforms(seed: int, use: int, shape: tuple[int, ...], begin: int = 0) -> NDArray[np.float64]:
    """Uniforms between 0 and 1, from number `begin` on; every use has its own."""
    ordinal = begin + np.arange(math.prod(shape))
    words = draw(np, derive_key(seed), Purpose.STUDY, ordinal=ordinal, client=NAME, window=use)
    return np.asarray(uniform52(np, words[0], words[1])).reshape(shape)


def resamples(n: int, seed: int) -> NDArray[np.float64]:
    """How often each of n is in resamples of n, float64[RESAMPLES, n]."""
    counts = np.empty((RESAMPLES, n))
    for row in range(RESAMPLES):  # one by one: numbers of all would take ten times the memory
        chosen = np.minimum((uniforms(seed, 1, (n,), row * n) * n).astype(np.int64), n - 1)
        counts[row] = np.bincount(chosen, minlength=n)
    return counts


def percentile_interval(
    of_resamples: NDArray[np.float64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the interval that holds a share `confidence` of the resamples, which are the last axis."""
    low, high = np.quantile(of_resamples, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=-1)
    return low, high
