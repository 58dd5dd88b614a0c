"""What a pool must be like to be sampled: arrays that were left out are filled in, and the first fault is named."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import AXES, MAX_CLIENT_ID, ClientPool
from servegen_gpu.errors import ProfileError
from servegen_gpu.law.dependence import is_rank_correlation
from servegen_gpu.request.families import EXPONENTIAL, FAMILY_NAMES, LARGEST_SHAPE, LEAST_SHAPE, ROWS
from servegen_gpu.request.schema import FIELDS, scalar_field_count
from servegen_gpu.schedules import LEAST_RATE_RPS, MAX_RATE_RPS

MAX_FACTOR = 1e30
"""Of a client's rate over that of its profile."""


def fill_in(pool: ClientPool) -> None:
    """Arrays that were left out: fields are independent, contexts have no limit, requests stand alone."""
    if pool.category not in FIELDS:
        return  # refused by `check`
    scalar, profiles = scalar_field_count(pool.category), len(pool.rate_rps)
    defaults: dict[str, NDArray[Any]] = {
        "correlations": np.empty((0, scalar, scalar)),
        "correlation": np.full(profiles, -1, np.int32),
        "context_tokens": np.zeros(profiles, np.int32),
        "system_tokens": np.zeros(profiles, np.int32),
        "turn_model": np.full(profiles, -1, np.int32),
        "environment": np.full(profiles, -1, np.int32),
    }
    for name, default in defaults.items():
        if not getattr(pool, name).size:
            object.__setattr__(pool, name, default)


def check(pool: ClientPool) -> None:
    """Refuse a pool that cannot be sampled, naming the first client and window at fault."""
    if pool.category not in FIELDS:
        raise ProfileError(f"a category among {list(FIELDS)}", repr(pool.category), "change it")
    if not 1 <= pool.window_s <= 4294:
        raise ProfileError("windows of 1 to 4,294 s", f"{pool.window_s} s", "regrid the profiles")
    if pool.rate_rps.ndim != 2 or not len(pool.client_ids) or not pool.rate_rps.size:
        raise ProfileError("at least one client and one window", "none", "give a pool with clients")
    sizes = {"clients": len(pool.client_ids), "profiles": len(pool.rate_rps)}
    sizes |= {"windows": pool.windows, "fields": len(pool.fields), "scalar fields": scalar_field_count(pool.category)}
    sizes["correlations"] = len(pool.correlations)
    for name, axes in AXES.items():
        array, shape = getattr(pool, name), tuple(sizes[axis] for axis in axes)
        if array.shape != shape:
            raise ProfileError(f"{name} of shape {shape}, [{', '.join(axes)}]", f"{array.shape}", f"fix `{name}`")
    if pool.whole_rps is not None and pool.whole_rps.shape != (pool.windows,):
        expected, got = f"whole_rps of shape {(pool.windows,)}, [windows]", f"{pool.whole_rps.shape}"
        raise ProfileError(expected, got, "make it with pool.with_shares_of(whole)")
    ids = pool.client_ids
    if ids[0] < 0 or ids[-1] > MAX_CLIENT_ID or (np.diff(ids) <= 0).any():
        falls = np.flatnonzero(np.diff(ids) <= 0)
        got = f"{ids[falls[0]]} before {ids[falls[0] + 1]}" if len(falls) else f"{ids[0]} to {ids[-1]}"
        raise ProfileError("client ids unique, ascending, from 0 to 2**31 - 1", got, "renumber the clients")
    if pool.profile.min() < 0 or pool.profile.max() >= len(pool.rate_rps):
        got = f"{pool.profile.min()} to {pool.profile.max()}"
        raise ProfileError(f"clients that point at one of {len(pool.rate_rps):,} profiles", got, "fix `profile`")
    wrong = np.flatnonzero(~((pool.rate_factor >= LEAST_RATE_RPS) & (pool.rate_factor <= MAX_FACTOR)))
    if len(wrong):
        got = f"{pool.rate_factor[wrong[0]]} of client {ids[wrong[0]]}"
        raise ProfileError(f"rate factors from {LEAST_RATE_RPS:g} to {MAX_FACTOR:g}", got, "fix `rate_factor`")
    _check_profiles(pool)

    active = pool.rate_rps > 0
    known = (pool.family >= EXPONENTIAL) & (pool.family < len(FAMILY_NAMES))
    least, most = (np.take(bounds, pool.family, mode="clip") for bounds in (LEAST_SHAPE, LARGEST_SHAPE))
    faults = {
        f"a rate of 0, or from {LEAST_RATE_RPS:g} to {MAX_RATE_RPS:g} req/s": (pool.rate_rps != 0)
        & ~((pool.rate_rps >= LEAST_RATE_RPS) & (pool.rate_rps <= MAX_RATE_RPS)),
        "a known gap family": active & ~known,
        f"a shape that gaps can have ({_shapes()})": active
        & ~((pool.shape > 0) & (pool.shape < np.inf) & (pool.shape >= least) & (pool.shape <= most)),
        "an occupancy in (0, 1]": active & ~((pool.occupancy > 0) & (pool.occupancy <= 1)),
        "a length table for every field": active & ((pool.table < 0) | (pool.table >= len(pool.tables))).any(axis=2),
    }
    for expected, fault in faults.items():
        if fault.any():
            p, w = np.argwhere(fault)[0]
            users = pool.client_ids[pool.profile == p]
            start_s = (pool.first_window + w) * pool.window_s
            raise ProfileError(
                expected,
                f"rate {pool.rate_rps[p, w]}, shape {pool.shape[p, w]}, occupancy {pool.occupancy[p, w]}, "
                f"tables {pool.table[p, w].tolist()} at client {users[:1].tolist()}, window {start_s} s",
                "fix the profile",
            )
    _check_busiest(pool)


def _shapes() -> str:
    return ", ".join(f"{row.name} {row.shape_range[0]:g} to {row.shape_range[1]:,g}" for row in ROWS if row.has_shape)


def _check_busiest(pool: ClientPool) -> None:
    """Refuse a client whose factor brings its rate over all bounds."""
    if pool.rate_factor.max() * pool.rate_rps.max() <= MAX_RATE_RPS:
        return
    busiest = pool.rate_factor * pool.rate_rps.max(axis=1)[pool.profile]
    c = int(busiest.argmax())
    if busiest[c] > MAX_RATE_RPS:
        got = f"{busiest[c]:g} req/s of client {pool.client_ids[c]}"
        raise ProfileError(f"clients of up to {MAX_RATE_RPS:g} req/s", got, "lower the rate")


def _check_profiles(pool: ClientPool) -> None:
    """Refuse correlations, limits, models and environments that no client can have, naming the first at fault."""
    for environment in pool.environments:
        environment.check_windows(pool.window_s)
    wrong = np.flatnonzero(~is_rank_correlation(pool.correlations))
    if len(wrong):
        raise ProfileError(
            "symmetric matrices of Spearman correlations in [-1, 1], ones on the diagonal",
            f"{pool.correlations[wrong[0]].tolist()} in row {wrong[0]} of `correlations`",
            "fix the matrix",
        )
    limits = {
        "correlation": (f"-1, or a row of the {len(pool.correlations):,} `correlations`", -1, len(pool.correlations)),
        "turn_model": (f"-1, or a row of the {len(pool.turn_models):,} `turn_models`", -1, len(pool.turn_models)),
        "context_tokens": ("0, or the most tokens of input and output together", 0, 2**31),
        "system_tokens": ("0, or the tokens that all inputs begin with", 0, 2**31),
        "environment": (f"-1, or a row of the {len(pool.environments):,} `environments`", -1, len(pool.environments)),
    }
    for name, (expected, low, end) in limits.items():
        wrong = np.flatnonzero((getattr(pool, name) < low) | (getattr(pool, name) >= end))
        if len(wrong):
            users = pool.client_ids[pool.profile == wrong[0]]
            raise ProfileError(
                expected, f"{getattr(pool, name)[wrong[0]]} at client {users[:1].tolist()}", f"fix `{name}`"
            )
