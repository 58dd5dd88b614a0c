"""In what order: requests of all cells by arrival.

The total order is (arrival, client, window of origin, ordinal, turn). Requests come window by window, client by client,
ordinals ascending, and equal arrivals belong to one window; so sorting by arrival and keeping the order of equals is
enough.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import for_blocks


def merge_order(time_us: NDArray[np.int64], span_us: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stable order of times.

    Time and position share one 64-bit word, so that an unstable sort of single words does it.

    Parameters
    ----------
    time_us : int64[n]
        From 0 to `span_us` - 1.
    span_us : int
        Needs as many bits as are left beside n: 2**42 microseconds (50 days) at 4 million requests.

    Returns
    -------
    sorted_us : int64[n]
    order : int64[n]
        ``time_us[order] == sorted_us``.
    """
    bits = max(1, len(time_us) - 1).bit_length()
    if span_us.bit_length() + bits > 63:
        order = np.argsort(time_us, kind="stable")
        return time_us[order], order
    word, order = np.empty(len(time_us), np.int64), np.empty(len(time_us), np.int64)

    def join(a: int, b: int) -> None:
        np.left_shift(time_us[a:b], bits, out=word[a:b])
        word[a:b] |= np.arange(a, b)

    def split(a: int, b: int) -> None:
        np.bitwise_and(word[a:b], (1 << bits) - 1, out=order[a:b])
        word[a:b] >>= bits

    for_blocks(len(word), join)
    word.sort()
    for_blocks(len(word), split)
    return word, order
