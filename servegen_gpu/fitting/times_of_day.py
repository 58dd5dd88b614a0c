"""Clients whose lengths change over the log: by spans of six hours, where a client has enough requests in each.

Axes: fields, requests; profiles, windows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPAN_WINDOWS = 36
FEWEST = 300
"""Requests that a profile needs in every span in which it has some."""
APART, NOISE = 0.1, 3.0
"""Lengths of a span differ if they do by this much from those of all, and by as many times the scale of chance."""
BINS_PER_OCTAVE = 8


def kinds_in_time(
    values: NDArray[np.int64],
    window: NDArray[np.int64],
    label: NDArray[np.int64],
    profiles: int,
    windows: int,
) -> NDArray[np.int64]:
    """Which lengths profiles have in their windows, int64[profiles, windows]: numbers from 0 without gaps.

    A profile has the same in all of its windows, unless lengths of some span are others than those of the whole log.

    Parameters
    ----------
    values : int64[fields, n]
        Of fields that may tell.
    window, label : int64[n]
        Window and profile of each request.
    profiles, windows : int
    """
    spans = -(-windows // SPAN_WINDOWS)
    cell = label * spans + window // SPAN_WINDOWS
    size = np.bincount(cell, minlength=profiles * spans).reshape(profiles, spans)
    differ = np.zeros(profiles, np.bool_)
    for column in values:
        place = (np.log2(1.0 + column) * BINS_PER_OCTAVE).astype(np.int64)
        bins = int(place.max(initial=0)) + 1
        counts = np.bincount(cell * bins + place, minlength=profiles * spans * bins).reshape(profiles, spans, bins)
        upto = np.cumsum(counts, axis=2)
        own = upto / np.maximum(size, 1)[..., None]
        all_of_it = upto.sum(axis=1) / np.maximum(size.sum(axis=1), 1)[:, None]
        off = np.abs(own - all_of_it[:, None]).max(axis=2)
        differ |= ((size > 0) & (off >= APART) & (off * np.sqrt(size) >= NOISE)).any(axis=1)
    differ &= ((size == 0) | (size >= FEWEST)).all(axis=1) & (size > 0).any(axis=1)
    # a span without requests has the lengths of the one before, or else of the first that has some
    some = np.where(size > 0, np.arange(spans), -1)
    last = np.maximum.accumulate(some, axis=1)
    last = np.where(last < 0, np.argmax(size > 0, axis=1)[:, None], last)
    span = np.where(differ[:, None], last, 0)[:, np.arange(windows) // SPAN_WINDOWS]
    kind: NDArray[np.int64] = np.unique(np.arange(profiles)[:, None] * spans + span, return_inverse=True)[1]
    return kind.reshape(profiles, windows)
