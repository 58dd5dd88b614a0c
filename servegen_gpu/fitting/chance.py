"""Random choices of a fit, by seed: the same log gives the same clients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.law.address import Purpose, derive_key, draw
from servegen_gpu.law.variates import uniform52


def uniforms(seed: int, lane: int, n: int) -> NDArray[np.float64]:
    """Uniforms between 0 and 1, float64[n]; every use has a lane of its own."""
    words = draw(np, derive_key(seed), Purpose.DESCRIPTION, ordinal=np.arange(n), client=lane, window=0)
    return np.asarray(uniform52(np, words[0], words[1]))


def sample_rows(n: int, most: int, seed: int, lane: int) -> NDArray[np.int64]:
    """Rows spread over all of `n`, int64[at most `most`], ascending: one from each of as many equal parts."""
    if n <= most:
        return np.arange(n, dtype=np.int64)
    return ((np.arange(most) + uniforms(seed, lane, most)) * (n / most)).astype(np.int64)
