"""From arrivals to rows under `jax.jit`: order, lengths, items.

Axes: cells, requests (in merge order; lanes beyond the last are garbage), draws (of four items each), items.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from servegen_gpu.backends.xla.arrivals import Requests
from servegen_gpu.backends.xla.exact import exact, once
from servegen_gpu.backends.xla.gaps import words_of
from servegen_gpu.backends.xla.tables import DeviceCells, DeviceTables
from servegen_gpu.law.address import Purpose
from servegen_gpu.law.context import cut_input, cut_output
from servegen_gpu.law.dependence import mix_words
from servegen_gpu.law.tables import find_bin, reason_tokens
from servegen_gpu.request.schema import INPUT, OUTPUT, of

LAST = 2**32 - 1
"""Sort key of lanes without a request."""


@jax.jit
def finish(tables: DeviceTables, cells: DeviceCells, found: Requests, from_us: Any, to_us: Any) -> dict[str, Any]:
    """Rows in merge order, lanes without a request last.

    Parameters
    ----------
    tables : DeviceTables
    cells : DeviceCells
    found : Requests
    from_us, to_us : int64
        Requests outside are dropped; microseconds from the start of the first window.

    Returns
    -------
    dict
        ``rows`` int32: how many; ``cell`` int32, ``ordinal`` uint32, ``us`` uint32 (from the start of the request's
        window), ``time_us`` int64 (from the start of the first window), ``client`` int32, and scalar fields int32, all
        of them [requests].
    """
    time_us = cells.offset_us[found.cell] + found.us.astype(jnp.int64)
    kept = found.inside & (time_us >= from_us) & (time_us < to_us)
    if cells.narrow:
        order = _stable_order(jnp.where(kept, time_us, LAST).astype(jnp.uint32))
    else:
        order = _stable_order(found.us)
        window = jnp.where(kept, cells.window_index[found.cell], LAST).astype(jnp.uint32)
        order = order[_stable_order(window[order])]
    cell, ordinal = found.cell[order], found.ordinal[order]
    rows = {
        "rows": kept.sum(dtype=jnp.int32),
        "cell": cell,
        "ordinal": ordinal,
        "us": found.us[order],
        "time_us": time_us[order],
        "client": cells.client[cell].astype(jnp.int32),
    }
    return rows | _scalar_fields(tables, cells, cell, ordinal)


def _stable_order(key: Any) -> Any:
    """Positions in the order of 32-bit keys, equals as they come; int32."""
    position = lax.iota(jnp.uint32, len(key))
    return lax.platform_dependent(key, position, cpu=order_of_words, default=order_of_pairs).astype(jnp.int32)


def order_of_pairs(key: Any, position: Any) -> Any:
    """For GPUs: XLA sends 32-bit keys to a radix sort, and wider ones to one that is 85 times slower."""
    return lax.sort((key, position), num_keys=1, is_stable=True)[1]


def order_of_words(key: Any, position: Any) -> Any:
    """For CPUs: one word sorts four times faster than a pair."""
    word = (key.astype(jnp.uint64) << jnp.uint64(32)) | position.astype(jnp.uint64)
    return lax.sort(word, is_stable=False).astype(jnp.uint32)


def _scalar_fields(tables: DeviceTables, cells: DeviceCells, cell: Any, ordinal: Any) -> dict[str, Any]:
    """Fields that are drawn once per request, by name; a reasoning ratio becomes the tokens that it means."""
    kind = tables.fields
    assert kind is not None
    schema = of(kind.category)
    names = [field.name for field in schema.scalars]
    words = list(words_of(tables, cells, Purpose.DATA, cell, ordinal))
    if kind.dependence == "comonotone":
        words = [words[0]] * len(names)
    elif len(names) > 4:
        words += words_of(tables, cells, Purpose.DATA, cell, ordinal, item=1)
    words = words[: len(names)]
    if kind.dependence == "copula":
        mix = exact(lambda words, mixing, of: mix_words(jnp, words, mixing, of, kind.ties), tables.zero)
        words = mix(words, tables.mixing, cells.mixing_of[cell])
    words = once(words, tables.zero)
    drawn = {
        name: _lookup(tables, word, cells.table[cell, f])
        for f, (name, word) in enumerate(zip(names, words, strict=True))
    }
    first, output = names[INPUT], names[OUTPUT]
    if cells.context is not None and not schema.items:  # with items, the input is not known yet
        context = cells.context[cell]
        drawn[first] = cut_input(jnp, drawn[first], context)
        drawn[output] = cut_output(jnp, drawn[output], drawn[first], context)
    if schema.ratio:
        drawn[schema.ratio.column] = reason_tokens(jnp, drawn[output], drawn.pop(schema.ratio.name))
    return drawn


def _lookup(tables: DeviceTables, word: Any, table: Any) -> Any:
    """Values that words select, int32."""
    assert tables.lengths is not None
    return tables.lengths.values[find_bin(jnp, word.astype(jnp.uint32), table, tables.lengths)]


@partial(jax.jit, static_argnames=("capacity",))
def items(
    tables: DeviceTables, cells: DeviceCells, rows: dict[str, Any], count: Any, purpose: Any, field: Any, capacity: int
) -> tuple[Any, Any]:
    """Values of the items of every request: word ``i % 4`` of draw ``i // 4`` for item i.

    Parameters
    ----------
    rows : dict
        Of `finish`.
    count : int32[requests]
        Items per request; 0 where there is no request.
    purpose : uint64
        Of the modality.
    field : int32
        Number of the modality's field.
    capacity : int
        At least as many as there are draws.

    Returns
    -------
    values : int32[4 * capacity]
        Request by request.
    sums : int32[requests]
        Of the values of each request.
    """
    draws = (count + 3) >> 2
    ends = jnp.cumsum(draws)
    request = jnp.repeat(jnp.arange(len(count), dtype=jnp.int32), draws, total_repeat_length=capacity)
    draw = jnp.arange(capacity)
    index = draw - (ends - draws)[request]
    cell = rows["cell"][request]
    words = jnp.stack(words_of(tables, cells, purpose, cell, rows["ordinal"][request], item=index), axis=1)
    used = jnp.arange(4) < (count[request] - 4 * index)[:, None]
    used = used & (draw < ends[-1])[:, None]
    table = jnp.broadcast_to(cells.table[cell, field][:, None], words.shape)
    values = jnp.where(used, _lookup(tables, words, table), 0)
    first = jnp.cumsum(count) - count
    to = jnp.where(used, (first[request] + 4 * index)[:, None] + jnp.arange(4), 4 * capacity)
    placed = jnp.zeros(4 * capacity, jnp.int32).at[to].set(values, mode="drop")
    return placed, jax.ops.segment_sum(values.sum(axis=1, dtype=jnp.int32), request, len(count))
