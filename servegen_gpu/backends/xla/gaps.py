"""Log-gaps under `jax.jit`: the law's variates over whole padded arrays, rejection by masks and a small buffer.

Axes: cells, requests (lanes beyond the last request are masked).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax

from servegen_gpu.backends.xla.exact import exact
from servegen_gpu.backends.xla.tables import DeviceCells, DeviceTables
from servegen_gpu.law.address import Purpose, draw
from servegen_gpu.law.philox import Words
from servegen_gpu.law.variates import GapConstants, try_log_gap

FEW = 1 << 14
"""So many lanes are cheaper to try all again than to compact; it also compiles in half the time."""


def words_of(
    tables: DeviceTables, cells: DeviceCells, purpose: Purpose, cell: Any, ordinal: Any, item: Any = 0
) -> Words:
    """The four words of requests of the given cells."""
    return draw(
        jnp,
        (tables.key[0], tables.key[1]),
        purpose,
        ordinal=ordinal,
        client=cells.client[cell],
        window=cells.window[cell],
        item=item,
    )


def log_gaps(
    tables: DeviceTables,
    cells: DeviceCells,
    draws: Collection[int],
    draw_of: Any,
    constants: GapConstants,
    cell: Any,
    ordinal: Any,
    wanted: Any,
) -> Any:
    """Logarithms of gaps at scale 1, where wanted.

    Parameters
    ----------
    draws : collection of int
        Codes of the draws that occur.
    draw_of : uint8[cells]
    constants : GapConstants
        float64[cells] each.
    cell, ordinal : int32[requests], uint32[requests]
    wanted : bool[requests]
    """
    gaps = jnp.zeros(len(cell))
    for code in sorted(draws):
        mine = draw_of[cell] == code

        def attempt_at(at: Any, attempt: Any, code: int = code) -> tuple[Any, Any]:
            words = words_of(tables, cells, Purpose.GAP, cell[at], ordinal[at], attempt)
            log_gap, accepted = exact(partial(try_log_gap, jnp, code), tables.zero)(words, constants.take(cell[at]))
            return log_gap, accepted

        gaps = jnp.where(mine, _until_accepted(attempt_at, wanted & mine), gaps)
    return gaps


def _until_accepted(attempt_at: Callable[[Any, Any], tuple[Any, Any]], wanted: Any) -> Any:
    """First accepted value of every wanted lane.

    Parameters
    ----------
    attempt_at : callable
        Lanes (a slice or indices) and the number of the attempt to values and whether they are accepted; None if all.
    wanted : bool[n]

    Returns
    -------
    float64[n]
    """
    n = len(wanted)

    def until_accepted(at: Any, attempt: int, wanted: Any) -> Any:
        def again(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            attempt, found, open_ = carry
            now, accepted = attempt_at(at, attempt)
            return attempt + 1, jnp.where(open_ & accepted, now, found), open_ & ~accepted

        start = (jnp.uint64(attempt), jnp.zeros(len(wanted)), wanted)
        return lax.while_loop(lambda carry: carry[2].any(), again, start)[1]

    value, accepted = attempt_at(slice(None), 0)
    if accepted is None:
        return value
    if n <= FEW:
        return until_accepted(slice(None), 0, wanted)
    some = n // 16  # an attempt rejects a twentieth at most, so one buffer nearly always holds all

    def retry(carry: tuple[Any, Any]) -> tuple[Any, Any]:
        value, left = carry
        (at,) = jnp.nonzero(left, size=some, fill_value=n)
        found = until_accepted(jnp.minimum(at, n - 1), 1, at < n)
        return value.at[at].set(found, mode="drop"), left.at[at].set(False, mode="drop")

    value, _ = lax.while_loop(lambda carry: carry[1].any(), retry, (value, wanted & ~accepted))
    return value
