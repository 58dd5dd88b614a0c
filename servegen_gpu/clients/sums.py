"""Sums of rates that do not depend on the order of clients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def order_free_sum(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over the first axis, the same bits for every order of the terms.

    Terms are split into two integers on a common scale, whose sums are exact.

    Parameters
    ----------
    terms : float64[n, m]
        Non-negative and finite, n at most 2**22.

    Returns
    -------
    float64[m]
    """
    if not len(terms):
        return np.zeros(terms.shape[1:])
    _, exponent = np.frexp(terms.max(axis=0))
    scaled = np.ldexp(terms, 40 - exponent)
    whole = np.floor(scaled)
    rest = np.rint(np.ldexp(scaled - whole, 40))
    high = whole.astype(np.int64).sum(axis=0)
    low = rest.astype(np.int64).sum(axis=0)
    total: NDArray[np.float64] = high.astype(np.float64) + np.ldexp(low.astype(np.float64), -40)
    return np.asarray(np.ldexp(total, exponent - 40))
