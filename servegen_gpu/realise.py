"""From a packed workload to one replica's: what its environments are in this replica goes into clocks and scales.

Where an environment has the factor M(s) in a cell s, a rate R becomes R · M: inside windows the clock runs by it, and
counts of rule ``renewal`` (and ``servegen``) take the window's mean of M, weighted by R. Rule ``exact`` keeps counts
and takes the clock alone; a window in which all M are 0 then keeps its clock, too.

Axes: groups (of clients that follow one clock), windows, pieces (of windows: where neither R nor M changes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from servegen_gpu.blocks import distinct
from servegen_gpu.clock import US, ClockTables, Pieces, clock_of
from servegen_gpu.errors import OptionError
from servegen_gpu.law.address import Key
from servegen_gpu.law.environment import BY_CLIENT, BY_NUMBER, factors, process
from servegen_gpu.packed import PackedWorkload, pack_clocks, unpack_clock
from servegen_gpu.packed_environment import PackedEnvironment
from servegen_gpu.request.tables import WORDS
from servegen_gpu.rules import CountRule

MAX_CELLS = 1 << 24
"""Of all groups together: half a year of seconds, and about 700 MB of clocks."""


def realised(packed: PackedWorkload, key: Key) -> PackedWorkload:
    """The workload of the replica with this key: the same one if nothing but the key is random about it.

    Raises
    ------
    OptionError
        If the span has too many cells.
    """
    if (environment := packed.environment) is None:
        return packed
    made = _realised(packed, environment, key)
    if packed.conversations is not None:
        made = replace(made, conversations=_realised(packed.conversations, environment, key))
    return made


def _realised(packed: PackedWorkload, environment: PackedEnvironment, key: Key) -> PackedWorkload:
    if not len(packed.profile):  # all requests belong to conversations, or none do
        return replace(packed, environment=None)
    row = environment.row[packed.profile]
    keeps = packed.count_rule[packed.profile] == CountRule.EXACT
    alone = np.where((row >= 0) & (environment.each[row] == BY_CLIENT), packed.client_id.astype(np.int64), -1)
    members, group = np.unique(np.stack([row, keeps & (row >= 0), alone]), axis=1, return_inverse=True)
    group = group.ravel().astype(np.int64)
    cells = sum(_cells(packed, int(environment.cell_us[r])) for r in members[0] if r >= 0)
    if cells > MAX_CELLS:
        raise OptionError(
            f"at most {MAX_CELLS:,} cells of environments in a trace",
            f"{cells:,}: {len(members[0]):,} groups of clients for {(packed.end_us - packed.start_us) / US:,.0f} s",
            "generate a part of it (start=, duration=), or make cell_s longer; parts adjoin",
        )
    base = _base(packed)
    clocks, factor = [], np.ones((members.shape[1], len(packed.row)))
    for g, (r, keeping, client) in enumerate(members.T.tolist()):
        if r < 0:
            clocks.append(base.clock)
            continue
        m = _factors(packed, environment, key, int(r), int(client))
        clock, factor[g] = _moved(base, packed, m, int(environment.cell_us[r]), bool(keeping))
        clocks.append(clock)
    expected = _expected(packed, group, factor)
    turns = packed.turns
    if turns is not None:
        ratio = np.divide(expected, packed.expected, out=np.zeros(len(expected)), where=packed.expected > 0)
        turns = replace(turns, requests=turns.requests * ratio)
    return replace(
        packed,
        group=group,
        clock=pack_clocks(clocks),
        window_scale=packed.window_scale[0] * factor,
        expected=expected,
        turns=turns,
        environment=None,
    )


def _cells(packed: PackedWorkload, cell_us: int) -> int:
    return -(-len(packed.row) * packed.window_us // cell_us)


def _factors(
    packed: PackedWorkload, environment: PackedEnvironment, key: Key, row: int, client: int
) -> NDArray[np.float64]:
    """M in every cell of the packed windows, float64[cells], from the cell in which the first window begins."""
    first = packed.first_window * packed.window_us // int(environment.cell_us[row])
    cells = _cells(packed, int(environment.cell_us[row])) + 1
    octaves, common = environment.octaves(row), float(environment.common[row])
    whose = int(environment.each[row])
    if whose == BY_NUMBER:
        z = process(key, whose, int(environment.number[row]), octaves, first, cells)
    else:
        z = np.sqrt(1.0 - common) * process(key, whose, client if whose == BY_CLIENT else row, octaves, first, cells)
        if common > 0:
            z += np.sqrt(common) * process(key, BY_NUMBER, int(environment.number[row]), octaves, first, cells)
    knots = slice(int(environment.knots[row]), int(environment.knots[row + 1]))
    return factors(z, environment.at[knots], environment.values[knots], float(environment.zero[row]))


@dataclass(frozen=True, eq=False)
class _Base:
    """The clock of a packed workload without environments.

    Attributes
    ----------
    clock : ClockTables
    key : int64[segments]
        Table and start of every segment as one ascending number: ``table << 33 | start_us``.
    change : int64[changes]
        Where the rate changes inside windows, ascending: microseconds from the begin of the first packed window.
    """

    clock: ClockTables
    key: NDArray[np.int64]
    change: NDArray[np.int64]

    def words_before(self, window: NDArray[np.int64], at_us: NDArray[np.int64]) -> NDArray[np.float64]:
        """Words of operational time before instants of windows, float64[n]."""
        clock, table = self.clock, self.clock.table[window].astype(np.int64)
        s = np.searchsorted(self.key, (table << 33) + at_us, side="right") - 1
        begun = s >= clock.offsets[table]
        s = np.maximum(s, clock.offsets[table])
        inside = (at_us - clock.start_us[s]) * 2.0**32 / clock.slope[s].astype(np.float64)
        words = np.minimum(clock.first[s] + inside, clock.last[s] + 1.0)
        before: NDArray[np.float64] = np.where(begun, words, 0.0)
        return before


def _base(packed: PackedWorkload) -> _Base:
    clock = unpack_clock(packed.clock)
    sizes = np.diff(clock.offsets)
    key = (np.repeat(np.arange(len(clock), dtype=np.int64), sizes) << 33) + clock.start_us
    count = sizes[clock.table]
    window = np.repeat(np.arange(len(clock.table)), count)
    segment = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + clock.offsets[clock.table][window]
    starts = clock.start_us[segment].astype(np.int64)
    return _Base(clock, key, (window * packed.window_us + starts)[starts > 0])


def _moved(
    base: _Base, packed: PackedWorkload, m: NDArray[np.float64], cell_us: int, keeps: bool
) -> tuple[ClockTables, NDArray[np.float64]]:
    """The clock of a group that the factors `m` move, and its windows' mean factors, float64[windows]."""
    windows, window_us = len(packed.row), packed.window_us
    begin_us = packed.first_window * window_us - packed.first_window * window_us // cell_us * cell_us
    if cell_us >= window_us:  # nothing changes inside windows
        factor = m[(begin_us + np.arange(windows) * window_us) // cell_us]
        return base.clock, np.ones(windows) if keeps else _settled(factor)
    start = np.arange(0, windows * window_us, cell_us, dtype=np.int64)
    if len(base.change):
        start = distinct(np.concatenate((start, base.change)))
    window, inside_us = np.divmod(start, window_us)
    offsets = np.searchsorted(start, np.arange(windows + 1) * window_us)
    length_us = np.diff(start, append=windows * window_us)
    before = base.words_before(window, inside_us)
    after = np.append(before[1:], WORDS)
    after[offsets[1:] - 1] = WORDS
    words = after - before
    moved = words * m[start // cell_us]
    if keeps:
        silent = np.add.reduceat(moved, offsets[:-1]) <= 0
        moved = np.where(silent[window], words, moved)
    rate = moved / length_us
    mean, clock = clock_of(Pieces(offsets, inside_us, length_us, rate, rate), window_us // US)
    return clock, np.ones(windows) if keeps else _settled(mean * (window_us / WORDS))


def _settled(factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of many terms without their last bits, which hang on the order of the terms."""
    settled: NDArray[np.float64] = np.rint(factor * 2.0**32) * 2.0**-32
    return settled


def _expected(packed: PackedWorkload, group: NDArray[np.int64], factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Requests expected in the windows, float64[windows], of groups with factors float64[groups, windows]."""
    expected: NDArray[np.float64] = np.zeros(len(packed.row))
    scale = packed.window_scale[0] * packed.window_length_s
    if len(factor) == 1:
        return np.asarray(packed.expected * factor[0])
    for g in range(len(factor)):
        mine = group == g
        weight = np.bincount(packed.profile[mine], packed.rate_factor[mine], minlength=len(packed.rate_rps))
        sends = np.flatnonzero(weight)
        expected += (weight[sends] @ packed.rate_rps[sends])[packed.row] * scale * factor[g]
    return expected
