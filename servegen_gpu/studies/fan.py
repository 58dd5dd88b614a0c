"""The load over time and how far replicas spread around it, from the first replicas, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.errors import OptionError
from servegen_gpu.reducing.reduction import Reduction

FIRST = 200
"""Replicas, or first replicas of draws, that are kept for it."""
MOST_BINS = 720
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass
class Fan:
    """Loads of the first replicas by bin of time, as far as a study adds them up anyway.

    Attributes
    ----------
    reduction : Reduction or None
        That has the loads: the one of the narrowest bins.
    loads : dict
        By number of the replica, int64[bins] of every column.
    """

    reduction: Reduction | None
    loads: dict[int, dict[str, NDArray[np.int64]]] = field(default_factory=dict)

    @classmethod
    def of(cls, reductions: Iterable[Reduction]) -> Fan:
        """The fan of what a study reduces."""
        binned = [one for one in reductions if one.binned is not None and one.binned.bins > 1]
        return cls(min(binned, key=lambda one: one.binned.width_us if one.binned else 0, default=None))

    def add(self, number: int, states: Mapping[str, Any]) -> None:
        """Keep the loads of a replica, if it is among the first."""
        if number < FIRST and self.reduction is not None and (binned := self.reduction.binned) is not None:
            together = -(-binned.bins // MOST_BINS)
            whole = binned.bins // together * together
            state = states[self.reduction.name]
            self.loads[number] = {
                column: state[column][:whole].reshape(-1, together).sum(axis=1) for column in binned.columns
            }

    def missing(self, count: int) -> list[int]:
        """Which of the first of so many replicas are not there."""
        return [number for number in range(min(count, FIRST)) if number not in self.loads] if self.reduction else []

    def settings(self, count: int) -> dict[str, Any]:
        """Quantiles over the first of so many replicas, in terms that JSON has; nothing without loads."""
        if self.reduction is None or self.reduction.binned is None or not count:
            return {}
        binned, first = self.reduction.binned, range(min(count, FIRST))
        loads = {column: np.stack([self.loads[number][column] for number in first]) for column in binned.columns}
        quantiles = {name: np.quantile(each, QUANTILES, axis=0).round(2).tolist() for name, each in loads.items()}
        bin_s = binned.width_us * -(-binned.bins // MOST_BINS) / 1e6
        return {"bins": {"bin_s": bin_s, "replicas": len(first), "quantiles": list(QUANTILES), "loads": quantiles}}


class Load(NamedTuple):
    """The load of a column over time.

    Attributes
    ----------
    column : str
        ``requests``, or a column of tokens.
    bin_s : float
    levels : float64[levels]
        0 to 1.
    quantiles : float64[levels, bins]
    """

    column: str
    bin_s: float
    levels: NDArray[np.float64]
    quantiles: NDArray[np.float64]


def loads_of(settings: Mapping[str, Any]) -> list[Load]:
    """What `Fan.settings` put there.

    Raises
    ------
    OptionError
        If it is anything else: settings may come from a file of anybody.
    """
    if (bins := settings.get("bins")) is None:
        return []
    try:
        bin_s, levels = float(bins["bin_s"]), np.array(bins["quantiles"], np.float64)
        found = [Load(str(name), bin_s, levels, np.array(rows, np.float64)) for name, rows in bins["loads"].items()]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _no_loads(str(error)) from error
    for one in found:
        whole = one.quantiles.ndim == 2 and one.levels.shape == one.quantiles.shape[:1] and one.quantiles.size > 0
        if not (whole and 0 < bin_s < np.inf and np.isfinite(one.levels).all() and np.isfinite(one.quantiles).all()):
            raise _no_loads(f"{one.quantiles.shape} numbers of {one.column} in bins of {bin_s} s")
    return found


def _no_loads(got: str) -> OptionError:
    return OptionError("quantiles of loads by bin in a study", got[:80], "make the study again")
