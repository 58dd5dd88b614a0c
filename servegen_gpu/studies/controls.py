"""Control variates: totals of a replica whose expectation is known exactly, whatever chance did.

Renewal processes in equilibrium send what their rates say on average, and lengths have the means of their tables. So
the requests of a replica, and its tokens, are known up to chance, and a figure that goes with them can be freed of
that part of its chance (`servegen_gpu.studies.intervals.controlled_mean`). Not where there are conversations: of their
turns, it is known how many belong to conversations that begin in a window, not how many are sent in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.packed import PackedWorkload
from servegen_gpu.plan import expected_in
from servegen_gpu.reducing.reduction import Reduced
from servegen_gpu.request.schema import Kind
from servegen_gpu.request.tables import PackedTables, Tables
from servegen_gpu.rules import CountRule

PREFIX = "control_"
"""Of columns: a total's deviation from its expectation, as a share of that."""


def expected_totals(packed: PackedWorkload) -> dict[str, float]:
    """Expected totals of a workload, by column: requests, and tokens that nothing cuts.

    None under the count rule ``servegen``, which is biased, and with conversations. Tokens only where there is no
    context limit, which cuts them.
    """
    if CountRule.SERVEGEN in packed.count_rule or packed.conversations is not None:
        return {}
    span_us = packed.start_us, packed.end_us
    found = {"requests": expected_in(packed, packed.requests, span_us)}
    if not packed.limited:
        means = _means(packed.tables)
        for field in packed.schema.scalars:
            if field.kind is Kind.ONCE:
                found[field.column] = expected_in(
                    packed, _tokens(packed, means[packed.table[..., field.lane]]), span_us
                )
    return {name: total for name, total in found.items() if total > 0}


def _tokens(packed: PackedWorkload, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected tokens of a field in each window, float64[windows], from the means of float64[profiles, rows]."""
    factor = np.bincount(packed.profile, packed.rate_factor, minlength=len(packed.rate_rps))
    by_row = factor @ (packed.rate_rps * mean)
    scale: NDArray[np.float64] = packed.window_scale[0] * packed.window_length_s * by_row[packed.row]
    return scale


def _means(tables: PackedTables) -> NDArray[np.float64]:
    """Mean of every table."""
    first = tables.guide.reshape(-1, (1 << tables.guide_bits) + 1)[:, 0].astype(np.int64)
    return Tables(np.append(first, len(tables.values)), tables.values, tables.thresholds).means


def totals_of(reduced: Reduced) -> dict[str, float]:
    """Totals of a replica, by column, as far as loads that were added up anyway say them."""
    found = {}
    for reduction in reduced.reductions:
        if reduction.binned is not None:
            for column in reduction.binned.columns:
                found[column] = float(reduced[reduction.name][column].sum())
    return found


def deviations(totals: Mapping[str, float], expected: Mapping[str, float]) -> dict[str, float]:
    """How far totals are from their expectation, as shares of it, by name of the table's column."""
    return {PREFIX + name: totals[name] / expected[name] - 1 for name in expected if name in totals}
