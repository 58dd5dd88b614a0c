"""A pool as the files that ServeGen released: two a client, which its own loader reads as well."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.clients.released.servegen import list_files, pool_of_files
from servegen_gpu.request.families import FAMILY_NAMES, GAMMA, WEIBULL, family_of
from servegen_gpu.request.tables import WORDS, Tables

MOST_CLIENTS = 2_000
SLOT_S = 21_600
"""Slots begin at multiples of this where they can, as in the released files."""
NEAR = np.arange(-8, 9)
"""Units in the last place among which a scale is looked for."""


def why_not(pool: ClientPool) -> str | None:
    """What of a pool these files cannot hold, in words; None if they can."""
    active = pool.rate_rps > 0
    families = np.unique(pool.family[active])
    reasons = {
        f"more than {MOST_CLIENTS:,} clients": len(pool) > MOST_CLIENTS,
        f"{_families(families)} gaps": not np.isin(families, (GAMMA, WEIBULL)).all(),
        "rates that are no counts of a log": not pool.measured.all(),
        "rank correlations": (pool.correlation >= 0).any(),
        "context limits": pool.context_tokens.any(),
        "system prompts": pool.system_tokens.any(),
        "several models of conversations": len(pool.turn_models) > 1 or len(np.unique(pool.turn_model)) > 1,
        "several environments": len(pool.environments) > 1 or len(np.unique(pool.environment)) > 1,
        "shares of another pool": pool.whole_rps is not None,
        "clients that are never active": not active[pool.profile].any(axis=1).all(),
        "a single window": pool.windows == 1,
        "windows before 0": pool.first_window < 0,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _families(codes: NDArray[np.uint8]) -> str:
    return " and ".join(FAMILY_NAMES[code].lower() for code in codes if code not in (GAMMA, WEIBULL))


def client_by_client(pool: ClientPool) -> ClientPool:
    """The pool with a profile for every client, silent windows blank, and tables in the order of the files."""
    rows = pool.profile
    rate = pool.rate_rps[rows] * pool.rate_factor[:, None]
    active = rate > 0
    blank = {name: np.where(active, getattr(pool, name)[rows], 0) for name in ("cv", "family", "shape", "occupancy")}
    slot = _slots(pool.table[rows], active)
    table = pool.table[rows]
    order: list[NDArray[np.int64]] = []
    made = np.full(table.shape, -1, np.int32)
    lanes, base = np.arange(table.shape[2]), 0
    for c in range(len(rows)):
        windows = np.flatnonzero(active[c])
        begins = windows[np.diff(slot[c, windows], prepend=-1) > 0]
        order.append(table[c, begins].ravel())
        made[c, windows] = base + slot[c, windows][:, None] * len(lanes) + lanes
        base += len(begins) * len(lanes)
    by_client = ("measured", "correlation", "context_tokens", "system_tokens", "turn_model", "environment")
    changed: dict[str, Any] = {name: getattr(pool, name)[rows] for name in by_client}
    changed |= {name: column.astype(getattr(pool, name).dtype) for name, column in blank.items()}
    return replace(
        pool,
        profile=np.arange(len(pool), dtype=np.int32),
        rate_factor=np.ones(len(pool)),
        rate_rps=rate,
        table=made,
        tables=pool.tables.select(np.concatenate(order)),
        **changed,
    )


def _slots(table: NDArray[np.int32], active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of the slot of every active window, counted for each client: a new one where a table changes."""
    slot = np.full(active.shape, -1)
    number = np.full(len(active), -1)
    latest = np.full((len(active), table.shape[2]), -2)
    for w in range(active.shape[1]):
        here = active[:, w]
        number += here & (table[:, w] != latest).any(axis=1)
        latest[here] = table[here, w]
        slot[here, w] = number[here]
    return slot


def write(folder: Path, pool: ClientPool) -> None:
    """Write the files of a pool that `client_by_client` made."""
    active = pool.rate_rps > 0
    start_s = (pool.first_window + np.arange(pool.windows)) * pool.window_s
    scale = _scales(pool)
    for c, client in enumerate(pool.client_ids.tolist()):
        cells = [
            (pool.rate_rps[c, w], pool.cv[c, w], FAMILY_NAMES[pool.family[c, w]], pool.shape[c, w], scale[c, w])
            if active[c, w]
            else (0, 0, "", 0, 0)
            for w in range(pool.windows)
        ]
        lines = [
            ",".join((str(t), *(cell if isinstance(cell, str) else repr(float(cell)) for cell in row)))
            for t, row in zip(start_s.tolist(), cells, strict=True)
        ]
        (folder / f"chunk-{client}-trace.csv").write_text("\n".join(lines) + "\n", encoding="ascii")
        slots = _dataset(pool, c, active[c], start_s)
        (folder / f"chunk-{client}-dataset.json").write_text(json.dumps(slots, indent=1) + "\n", encoding="ascii")


def _scales(pool: ClientPool) -> NDArray[np.float64]:
    """Scales of the gap families, by which mean gaps and covered parts of windows come out as they are."""
    scale = np.zeros(pool.rate_rps.shape)
    weibull = pool.family == WEIBULL
    scale[weibull] = np.exp(-family_of(WEIBULL).log_mean(lambda _, x: np.log(x), pool.shape[weibull]))
    scale[weibull] /= pool.rate_rps[weibull]
    gamma = pool.family == GAMMA
    rate, shape, covered = pool.rate_rps[gamma], pool.shape[gamma], pool.occupancy[gamma]
    found = covered / (rate * shape)
    near = found[:, None] + NEAR * np.spacing(found)[:, None]
    extent = np.minimum(1.0, rate[:, None] * (shape[:, None] * near))
    scale[gamma] = near[np.arange(len(near)), np.abs(extent - covered[:, None]).argmin(axis=1)]
    return scale


def _dataset(
    pool: ClientPool, c: int, active: NDArray[np.bool_], start_s: NDArray[np.int64]
) -> dict[str, dict[str, str]]:
    """Slots of one client: by when they begin, a histogram for each field."""
    slots: dict[str, dict[str, str]] = {}
    before_s, latest = int(start_s[0]) - 1, None
    for w in np.flatnonzero(active).tolist():
        row = pool.table[c, w].tolist()
        if row != latest:
            even_s = int(start_s[w]) // SLOT_S * SLOT_S
            begin_s = even_s if even_s > before_s else int(start_s[w])
            slots[str(begin_s)] = {
                field.name: _histogram(pool.tables, t, field.unit)
                for field, t in zip(pool.schema.fields, row, strict=True)
            }
            latest = row
        before_s = int(start_s[w])
    return slots


def _histogram(tables: Tables, t: int, unit: int) -> str:
    bins = slice(int(tables.offsets[t]), int(tables.offsets[t + 1]))
    values: list[Any] = (tables.values[bins] / unit if unit > 1 else tables.values[bins]).tolist()
    words = tables.widths(bins) / WORDS
    return "{" + ", ".join(f"{value}: {share!r}" for value, share in zip(values, words.tolist(), strict=True)) + "}"


def read(folder: Path, name: str, category: str) -> ClientPool:
    """Read the files of a directory, with those that somebody has added."""
    return pool_of_files(name, category, *list_files(folder), "error")[0]


def same(a: ClientPool, b: ClientPool) -> bool:
    """Whether two pools have the same clients, rates, gaps and tables, bit for bit."""
    mine, others = a.arrays(), b.arrays()
    extra = ("turn_model", "environment")  # which the files do not have
    return all(np.array_equal(array, others[name]) for name, array in mine.items() if name not in extra)
