"""ServeGen's module ``utils``: target rates for the windows of a pool or view, and draws from a CDF."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.sums import order_free_sum
from servegen_gpu.compat.clientpool import ClientPool, ClientPoolView, ClientWindow
from servegen_gpu.compat.errors import InputError

__all__ = [
    "ClientPool",
    "ClientPoolView",
    "ClientWindow",
    "get_bounded_rate_fn",
    "get_constant_rate_fn",
    "get_scaled_rate_fn",
    "sample_from_cdf",
]


def get_constant_rate_fn(pool: ClientPool | ClientPoolView, target_rate: float) -> dict[int, float]:
    """The same total rate, req/s, at every timestamp of the windows."""
    chosen = pool._view().select()
    return {t: target_rate for t, some in zip(chosen.timestamps, chosen.present(), strict=True) if some}  # type: ignore[misc]


def get_scaled_rate_fn(pool: ClientPool | ClientPoolView, scale_factor: float) -> dict[int, float]:
    """The clients' own total rate times a factor, at every timestamp where somebody is active."""
    return {t: total * scale_factor for t, total in _own_rates(pool).items()}


def get_bounded_rate_fn(pool: ClientPool | ClientPoolView, max_rate: float) -> dict[int, float]:
    """The clients' own total rate, scaled down as a whole if its highest window has more than `max_rate` req/s."""
    own = _own_rates(pool)
    highest = max(own.values(), default=0.0)
    return {t: total * (max_rate / highest) for t, total in own.items()} if highest > max_rate else own


def _own_rates(pool: ClientPool | ClientPoolView) -> dict[int, float]:
    chosen = pool._view().select()
    totals = order_free_sum(chosen.rates()).tolist()
    return {t: total for t, total in zip(chosen.timestamps, totals, strict=True) if total > 0}  # type: ignore[misc]


def sample_from_cdf(cdf: tuple[NDArray[Any], NDArray[Any]], n_samples: int = 1, rng: Any = None) -> NDArray[Any]:
    """Draw values from a CDF.

    Parameters
    ----------
    cdf : tuple
        Values and cumulative probabilities, as `get_cdfs` gives them.
    n_samples : int
    rng : numpy.random.RandomState or Generator, optional
        Anything with ``random(n)``. None takes random numbers from the system.

    Returns
    -------
    array[n_samples]
        Of the type of the values; empty where the CDF is.
    """
    values, probabilities = (np.asarray(part) for part in cdf)
    if len(values) != len(probabilities):
        raise InputError(
            "as many values as probabilities", f"{len(values)} and {len(probabilities)}", "pass a CDF of get_cdfs"
        )
    if not len(values):
        return np.array([])
    uniforms = _system_uniforms(n_samples) if rng is None else rng.random(n_samples)
    return values[np.minimum(np.searchsorted(probabilities, uniforms), len(values) - 1)]


def _system_uniforms(n: int) -> NDArray[np.float64]:
    words = np.frombuffer(os.urandom(8 * n), np.uint64)
    return np.asarray(((words >> np.uint64(12)) + 0.5) * 2.0**-52, np.float64)
