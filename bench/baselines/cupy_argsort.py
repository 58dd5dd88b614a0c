"""By hand with CuPy: arrivals in float64 and one argsort, then a gather of every column."""

from __future__ import annotations

from typing import Any

import cupy as cp
from cupy_steps import gathered, peak, unsorted, wait
from problem import Problem, main


def window(of: Problem, w: int) -> dict[str, Any]:
    """Columns of a window."""
    seconds, client, fields = unsorted(of, w)
    order = cp.argsort(seconds)
    return gathered(of, w, (seconds[order] * 1e6).astype(cp.int64), order, client, fields)


if __name__ == "__main__":
    main(window, wait, peak)
