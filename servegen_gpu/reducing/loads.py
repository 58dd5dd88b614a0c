"""Requests and tokens by bin of time, and figures of them: peaks, quantiles, dispersion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.comparing.measures import dispersion
from servegen_gpu.errors import OptionError
from servegen_gpu.reducing.reduction import Binned, Reduction, State, numbers
from servegen_gpu.windowed import MAX_WINDOWS, microseconds

Figures = Callable[[State], dict[str, float]]


def loads(columns: Sequence[str], bin_s: float, span_s: float, figures: Figures = numbers, name: str = "") -> Reduction:
    """Requests and tokens by bin; bins adjoin from the start of the trace, and only whole ones count.

    Parameters
    ----------
    columns : sequence of str
        ``"requests"``, and columns of tokens; lists are summed over their items.
    bin_s, span_s : float
        Length of a bin, and of the trace.
    figures : function of a state, optional
    name : str
        ``loads_10s`` and the like by default.

    Returns
    -------
    Reduction
        Its state has int64[bins + 1] for every column; the last number is what arrives behind the last whole bin.

    Raises
    ------
    OptionError
        If a bin is longer than the trace, or there are more than 2**24 of them.
    """
    binned = Binned(tuple(columns), *bins_in(bin_s, span_s))
    name = name or f"loads_{bin_s:g}s"
    return Reduction(name, binned.nothing, binned.of, figures=figures, binned=binned, span_s=span_s)


def bins_in(bin_s: float, span_s: float) -> tuple[int, int]:
    """Length of a bin in microseconds, and how many whole ones a span has."""
    width_us = microseconds(bin_s)
    bins = round(span_s * 1e6) // width_us
    if not 1 <= bins <= MAX_WINDOWS:
        expected = f"1 to {MAX_WINDOWS:,} bins of {bin_s:g} s"
        raise OptionError(expected, f"a trace of {span_s:g} s, which has {bins:,}", "change the length of the bins")
    return width_us, bins


def totals(columns: Sequence[str], figures: Figures, name: str = "totals") -> Reduction:
    """Requests and tokens of the whole trace: a load without bins."""
    binned = Binned(tuple(columns), 1, 0)
    return Reduction(name, binned.nothing, binned.of, figures=figures, binned=binned)


def index_of_dispersion(load: NDArray[np.int64], requests: NDArray[np.int64] | None = None) -> float:
    """Variance of bins over their mean; of tokens over tokens per request, too, so that Poisson counts have about 1.

    NaN of fewer than two bins, or without a request.
    """
    x = load.astype(np.float64)
    sums = [float(len(x)), float(x.sum()), float(np.dot(x, x))]
    if requests is not None:
        sums.append(float(requests.sum()))
    return float(dispersion(np.array(sums)))
