"""Populations: any number of clients from a preset, or from a file of your own, with nothing to download.

Client 0 is the largest, client 1 the next, and so on. What a client is like depends on the seed and its id only; the
number of clients changes nothing but the common factor that brings all of them to the workload's total rate.
"""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import MAX_CLIENTS, ClientPool
from servegen_gpu.clients.population.preset import Kind, Preset
from servegen_gpu.clients.population.presets import PRESETS, built_in
from servegen_gpu.clients.population.skew import weights
from servegen_gpu.clients.population.strata import HEAD, stratified
from servegen_gpu.clients.scaled import scaled
from servegen_gpu.clients.stated.arrivals import Arrivals
from servegen_gpu.clients.stated.diurnal import settled
from servegen_gpu.clients.stated.tabulate import Table, grid_of, new_table, tables_of
from servegen_gpu.errors import OptionError, unknown
from servegen_gpu.request.families import CV_RANGE, NO_FAMILY
from servegen_gpu.request.schema import FIELDS, INPUT, OUTPUT, scalar_field_count
from servegen_gpu.request.tables import Tables

WINDOW_S = 600
STEPS = {"cv": 5, "hours": 3, "input_tokens": 5, "output_tokens": 3}
"""How many equally frequent steps each spread has; the order is that of the lanes of the draws."""
STEP_Z = {
    3: (-1.0907965, 0.0, 1.0907965),
    5: (-1.3998096, -0.5319039, 0.0, 0.5319039, 1.3998096),
}
"""Means of a standard normal variable in its thirds and fifths."""


def population(
    workload: str | os.PathLike[str] | Preset = "deepseek-r1", clients: int | None = None, seed: int = 0
) -> ClientPool:
    """Make a population of clients whose rates add up to the workload's, however many there are.

    Parameters
    ----------
    workload : str or path
        One of `PRESETS`, or a TOML file of your own (see `servegen_gpu.clients.population.preset_toml`);
        ``servegen-gpu presets show NAME`` prints one to begin with.
    clients : int, optional
        How many; the workload's own number if left out (25,913 for deepseek-r1).
    seed : int
        From 0 to 2**64 - 1: decides which client behaves how. Sampling has a seed of its own.

    Raises
    ------
    OptionError, ProfileError
        If there is no such workload, or its file has a fault.
    """
    preset = workload if isinstance(workload, Preset) else find_preset(workload)
    n = preset.clients if clients is None else clients
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or not 1 <= n <= MAX_CLIENTS:
        raise OptionError(f"from 1 to {MAX_CLIENTS:,} clients", repr(clients), "change clients")
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or not 0 <= seed < 1 << 64:
        raise OptionError("a seed from 0 to 2**64 - 1", repr(seed), "change seed")

    weight = weights(preset.skew.law(preset.clients), max(int(n), HEAD))
    kind, steps = _who(preset, weight, int(seed))
    weight = weight[:n]
    # one profile for every combination that occurs
    shape = (len(preset.top) + len(preset.kinds), *STEPS.values())
    code = np.ravel_multi_index((kind[:n], *steps[:, :n]), shape)
    present, profile = np.unique(code, return_inverse=True)
    k, cv_step, hour_step, input_step, output_step = np.unravel_index(present, shape)

    rates, families, shapes, cvs = _in_time(preset)
    rows, tables = _tables(preset)
    rate_rps = rates[k, hour_step]
    active = rate_rps > 0
    specs = [each.spec for each in (*preset.top, *preset.kinds)]
    scalar = scalar_field_count(preset.category)
    given = np.array([spec.correlation is not None for spec in specs])
    matrices = [spec.correlation for spec in specs if spec.correlation is not None]
    return ClientPool(
        name=preset.name,
        category=preset.category,
        window_s=WINDOW_S,
        first_window=0,
        client_ids=np.arange(n, dtype=np.int64),
        profile=profile.astype(np.int32),
        rate_factor=weight * (preset.rate_rps / math.fsum(weight.tolist())),
        rate_rps=rate_rps,
        cv=np.where(active, cvs[k, cv_step], 0.0),
        family=np.where(active, families[k], NO_FAMILY).astype(np.uint8),
        shape=np.where(active, shapes[k, cv_step], 0.0),
        occupancy=active.astype(np.float64),
        table=np.where(active[..., None], rows[k, input_step, output_step], -1).astype(np.int32),
        tables=tables,
        measured=np.zeros(len(k), np.bool_),
        correlations=np.array(matrices).reshape(-1, scalar, scalar),
        correlation=np.where(given, np.cumsum(given) - 1, -1)[k].astype(np.int32),
        context_tokens=np.array([spec.context_tokens for spec in specs], np.int32)[k],
        turn_models=() if preset.turns is None else (preset.turns,),
        turn_model=np.full(len(k), -1 if preset.turns is None else 0, np.int32),
        environments=() if preset.environment is None else (preset.environment,),
        environment=np.full(len(k), -1 if preset.environment is None else 0, np.int32),
    )


def find_preset(workload: str | os.PathLike[str]) -> Preset:
    """A preset by its name, or from a TOML file by its path."""
    if not isinstance(workload, str | os.PathLike):
        raise OptionError(f"a built-in workload ({', '.join(PRESETS)}) or a path", repr(workload)[:60], "name one")
    name = os.fspath(workload)
    if name in PRESETS:
        return built_in(name)
    if not isinstance(workload, str) or name.lower().endswith(".toml"):
        from servegen_gpu.clients.population.preset_toml import read_preset

        return read_preset(Path(name))
    raise unknown("a TOML file, or a built-in workload", name, PRESETS)


def _who(preset: Preset, weight: NDArray[np.float64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which kind each client is, int64[clients], and its step of every spread, int64[spreads, clients]."""
    top, head = len(preset.top), weight[:HEAD]
    shares = np.array([[kind.share for kind in preset.kinds]])
    tail = np.array([[kind.tail_share for kind in preset.kinds]])
    everyone = np.zeros(len(weight), np.int64)
    kind = top + stratified(shares, tail, everyone, head, seed, 0, top)
    kind[:top] = np.arange(top)
    steps = np.empty((len(STEPS), len(weight)), np.int64)
    for lane, count in enumerate(STEPS.values()):
        alike = np.ones((top + len(preset.kinds), count))
        steps[lane] = stratified(alike, alike, kind, head, seed, 1 + lane, top)
        steps[lane, :top] = count // 2
    return kind, steps


@lru_cache(maxsize=len(PRESETS))
def _in_time(preset: Preset) -> tuple[NDArray[np.float64], ...]:
    """What a preset's kinds do in time.

    Returns
    -------
    rates : float64[kinds, steps of hours, windows]
        With a mean of 1.
    families : float64[kinds, windows]
    shapes, cvs : float64[kinds, steps of CV, windows]
    """
    kinds = (*preset.top, *preset.kinds)
    rates = np.empty((len(kinds), STEPS["hours"], preset.windows))
    families = np.empty((len(kinds), preset.windows))
    shapes, cvs = (np.empty((len(kinds), STEPS["cv"], preset.windows)) for _ in range(2))
    for i, kind in enumerate(kinds):
        for j, z in enumerate(STEP_Z[STEPS["hours"]]):
            rates[i, j] = np.roll(kind.rate, round(kind.spread.hours * z * 3600 / WINDOW_S))
        arrivals = kind.spec.arrivals
        held = arrivals.at(preset.windows, WINDOW_S)
        families[i] = np.array([value.row.code for value in arrivals.values])[held]
        for j, z in enumerate(STEP_Z[STEPS["cv"]]):
            factor = float(settled(np.exp(np.array([kind.spread.cv * z])))[0])
            both = np.array([_spread_gaps(value, factor) for value in arrivals.values])
            shapes[i, j], cvs[i, j] = both[held].T
    return rates, families, shapes, cvs


def _spread_gaps(arrivals: Arrivals, factor: float) -> tuple[float, float]:
    """Shape and CV of gaps whose CV is another by a factor; exponential gaps have but one."""
    family, (shape, cv) = arrivals.row, arrivals.shape_and_cv()
    if not family.has_shape or factor == 1:
        return shape, cv
    low, high = family.shape_range
    shape = min(max(family.shape_of(min(max(cv * factor, CV_RANGE[0]), CV_RANGE[1])), low), high)
    return shape, float(settled(np.array([family.cv_of(shape)]))[0])


@lru_cache(maxsize=len(PRESETS))
def _tables(preset: Preset) -> tuple[NDArray[np.int32], Tables]:
    """Rows of the tables, int32[kinds, input steps, output steps, windows, fields], and the tables."""
    kinds = (*preset.top, *preset.kinds)
    shape = (len(kinds), STEPS["input_tokens"], STEPS["output_tokens"], preset.windows, len(FIELDS[preset.category]))
    rows = np.empty(shape, np.int32)
    made: list[Table] = []
    for i, kind in enumerate(kinds):
        for lane, (field, lengths) in enumerate(kind.spec.lengths.items()):
            held = lengths.at(preset.windows, WINDOW_S)
            axes = {INPUT: (-1, 1), OUTPUT: (1, -1)}.get(lane, (1, 1))
            row = []
            for factor in _factors(kind, lane):
                row.append(len(made) + held)
                # not remembered: tables of every file ever read would stay
                made += [new_table(scaled(value, factor), grid_of(field)) for value in lengths.values]
            rows[i, ..., lane] = np.array(row).reshape(*(axes if len(row) > 1 else (1, 1)), preset.windows)
    return rows, tables_of(made)


def _factors(kind: Kind, lane: int) -> list[float]:
    """Factors on a field's lengths, one for every step of the spread, with a mean of 1."""
    key = {INPUT: "input_tokens", OUTPUT: "output_tokens"}.get(lane, "")
    spread = getattr(kind.spread, key, 0.0)
    if not spread:
        return [1.0]
    factors = np.exp(spread * np.array(STEP_Z[STEPS[key]]))
    return [float(factor) for factor in settled(factors / factors.mean())]
