"""Traces in forms that tests can compare and count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

import servegen_gpu as sg
from servegen_gpu import Ragged, Trace


def flat(trace: Trace) -> dict[str, np.ndarray]:
    """All columns as plain arrays; a list column as its offsets and its values."""
    arrays: dict[str, np.ndarray] = {}
    for name, column in trace.columns.items():
        if isinstance(column, Ragged):
            arrays |= {f"{name}.offsets": column.offsets, f"{name}.values": column.values}
        else:
            arrays[name] = column
    return arrays


def same(a: Trace, b: Trace) -> bool:
    """Whether two traces have the same rows in the same order, bit for bit."""
    left, right = flat(a), flat(b)
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]) for name in left
    )


def rows(trace: Trace) -> list[tuple[Any, ...]]:
    """Rows as tuples, in order."""
    columns = (
        [tuple(c.values[a:b].tolist()) for a, b in zip(c.offsets[:-1], c.offsets[1:], strict=True)]
        if isinstance(c, Ragged)
        else c.tolist()
        for c in trace.columns.values()
    )
    return list(zip(*columns, strict=True))


def take(trace: Trace, order: np.ndarray) -> Trace:
    """Rows at `order`."""
    columns: dict[str, Any] = {}
    for name, c in trace.columns.items():
        if isinstance(c, Ragged):
            parts = [c.values[c.offsets[i] : c.offsets[i + 1]] for i in order.tolist()]
            offsets = np.concatenate(([0], np.cumsum(c.lengths[order])))
            columns[name] = Ragged(offsets, np.concatenate([c.values[:0], *parts]))
        else:
            columns[name] = c[order]
    return Trace(columns)


def moved(trace: Trace, by_us: int) -> Trace:
    """The trace with all arrivals later by `by_us`."""
    return Trace(trace.columns | {"arrival_us": trace["arrival_us"] + by_us})


def between(trace: Trace, from_us: int, to_us: int) -> Trace:
    """Rows that arrive in [from_us, to_us)."""
    return trace.rows(*np.searchsorted(trace["arrival_us"], [from_us, to_us]).tolist())


def only(trace: Trace, clients: Iterable[int]) -> list[tuple[Any, ...]]:
    """Rows of the given clients."""
    wanted = set(clients)
    return [row for row, client in zip(rows(trace), trace["client"].tolist(), strict=True) if client in wanted]


def by_cell(trace: Trace, window_us: int = 600_000_000) -> dict[tuple[int, int], list[tuple[Any, ...]]]:
    """Rows without their arrival, by (client, window), in order of arrival."""
    cells: dict[tuple[int, int], list[tuple[Any, ...]]] = defaultdict(list)
    for arrival, client, *rest in rows(trace):
        cells[client, arrival // window_us].append(tuple(rest))
    return cells


def joined(pool: sg.ClientPool, **keywords: Any) -> Trace:
    """All slabs of a stream, concatenated."""
    return Trace.concat(list(sg.stream(pool, **keywords)))


def gaps_by_turn(trace: Trace) -> dict[tuple[int, int], int]:
    """Inter-turn times in microseconds by (conversation, turn)."""
    order = np.lexsort((trace["turn"], trace["conversation"]))
    conversation, turn, at = (trace[name][order] for name in ("conversation", "turn", "arrival_us"))
    inside = np.flatnonzero((np.diff(conversation) == 0) & (np.diff(turn) == 1)) + 1
    gaps = at[inside] - at[inside - 1]
    return dict(zip(zip(conversation[inside].tolist(), turn[inside].tolist(), strict=True), gaps.tolist(), strict=True))
