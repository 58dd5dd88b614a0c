"""What a fitted pool tells of single requests, and that nothing is left of it."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

import servegen_gpu as sg
from servegen_gpu.clients.pool import ClientPool
from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.privacy import Behind, private
from servegen_gpu.fitting.private_bins import merged_bins
from servegen_gpu.fitting.private_clients import even_windows
from servegen_gpu.fitting.private_draft import Draft
from servegen_gpu.fitting.private_turns import private_model
from servegen_gpu.request.families import GAMMA, NO_FAMILY
from servegen_gpu.request.tables import Tables

WINDOWS, LEAST = 24, 10
PLANTED_INPUT, PLANTED_OUTPUT, PLANTED_SMALL = 918_273_645, 817_263_541, 716_253_417
"""Lengths that one request has: the largest input, the largest output, and one of a small client."""


def counted_pool(seed: int = 1, clients: int = 40) -> tuple[ClientPool, Behind]:
    """A pool of counts, as a log gives it: a few large clients, many of a few requests, and planted lengths."""
    random = np.random.default_rng(seed)
    sizes = np.concatenate(([3000, 800, 200, 60], random.integers(1, 9, clients - 4)))
    windows = np.stack([np.bincount(random.integers(0, WINDOWS, n), minlength=WINDOWS) for n in sizes])
    offsets, values, counts = [0], [], []
    for c, n in enumerate(sizes):
        lengths = [random.lognormal(6, 1.5, n).astype(np.int64) + 1, random.integers(1, 400, n)]
        lengths[1][: n // 3] = 128  # a modal value, kept as it is where it has enough
        if c == 0:
            lengths[0][7], lengths[1][9] = PLANTED_INPUT, PLANTED_OUTPUT
        if c == 9:
            lengths[0][0] = PLANTED_SMALL
        for column in lengths:
            distinct, times = np.unique(column, return_counts=True)
            values.append(distinct)
            counts.append(times)
            offsets.append(offsets[-1] + len(distinct))
    bins = np.concatenate(counts)
    active = windows > 0
    pool = ClientPool(
        name="log",
        category="language",
        window_s=600,
        first_window=0,
        client_ids=np.arange(clients, dtype=np.int64) * 1000 + 77_000_123,
        profile=np.arange(clients, dtype=np.int32),
        rate_factor=np.ones(clients),
        rate_rps=windows / 600,
        cv=np.where(active, 2.0, 0.0),
        family=np.where(active, GAMMA, NO_FAMILY).astype(np.uint8),
        shape=np.where(active, 0.25, 0.0),
        occupancy=active.astype(np.float64),
        table=np.where(active[..., None], 2 * np.arange(clients)[:, None, None] + np.arange(2), -1).astype(np.int32),
        tables=Tables.from_weights(np.array(offsets), np.concatenate(values), bins),
        measured=np.ones(clients, np.bool_),
    )
    return pool, Behind(bins=bins, windows=windows, clients=sizes)


def test_merged_bins_have_enough_and_keep_what_is_common():
    values = np.array([1, 5, 6, 7, 100, 200, 900, 1000, 3, 4])
    counts = np.array([1, 30, 2, 3, 40, 6, 5, 1, 4, 9])
    offsets, merged, sums = merged_bins(np.array([0, 8, 10]), values, counts, 10)
    assert offsets.tolist() == [0, 3, 4]
    assert merged.tolist() == [5, 100, (6 * 200 + 5 * 900 + 1000) // 12, 4]  # 1 falls to 5, 6 and 7 to 5
    assert sums.tolist() == [36, 40, 12, 13]


@pytest.mark.parametrize("seed", range(20))
def test_merged_bins_keep_the_mass_of_every_table_and_ascend(seed):
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 200, 30)
    values = np.concatenate([np.sort(random.choice(5000, n, replace=False)) for n in sizes])
    counts = random.geometric(0.3, len(values)) * random.choice([0, 1, 1, 1, 40], len(values))
    before = np.concatenate(([0], np.cumsum(sizes)))
    counts[before[:-1]] += 12
    for least in (1, 2, 7, 12):
        offsets, merged, sums = merged_bins(before, values, counts, least)
        assert (sums >= least).all()
        assert (np.add.reduceat(sums, offsets[:-1]) == np.add.reduceat(counts, before[:-1])).all()
        for t in range(len(sizes)):
            mine = merged[offsets[t] : offsets[t + 1]]
            own = slice(before[t], before[t + 1])
            assert (np.diff(mine) > 0).all()
            heavy = values[own][counts[own] >= least]
            assert np.isin(heavy, mine).all()
            assert values[own][0] <= mine[0] <= mine[-1] <= values[own][-1]


def test_a_table_of_too_few_requests_is_refused():
    with pytest.raises(OptionError, match="at least 10 requests, got 9 in table 1"):
        merged_bins(np.array([0, 1, 3]), np.array([5, 1, 2]), np.array([50, 5, 4]), 10)


def behind_tables(pool: ClientPool, total: np.ndarray) -> np.ndarray:
    """Requests behind every bin, from the words of the tables and the requests of each."""
    return pool.tables.widths() / 2**32 * np.repeat(total, np.diff(pool.tables.offsets))


def test_at_least_so_many_requests_stand_behind_all_that_is_left():
    pool, behind = counted_pool()
    made, suppressed = private(pool, behind, LEAST)
    requests = (made.rate_rps * made.window_s).round(9)
    factor = np.bincount(made.profile, made.rate_factor)
    by_profile = (factor[:, None] * requests).sum(axis=1)
    assert len(made) == len(pool)
    assert by_profile.sum() == pytest.approx(behind.clients.sum())
    assert (by_profile > LEAST - 1e-6).all()
    drawn = np.bincount(
        made.table[made.table[..., 0] >= 0][:, 0], (factor[:, None] * requests)[made.table[..., 0] >= 0]
    )
    used = np.unique(made.table[..., 0][made.table[..., 0] >= 0])
    bins = behind_tables(made, np.pad(drawn, (0, len(made.tables) - len(drawn))))
    for t in used:
        assert bins[made.tables.offsets[t] : made.tables.offsets[t + 1]].min() > LEAST * 0.9
    assert suppressed.clients == 36
    assert 1 <= suppressed.client_groups <= 36
    assert suppressed.bins_after < suppressed.bins_before / 2
    assert all(len(note) < 200 for note in suppressed.notes())


def test_small_clients_cannot_be_told_from_each_other_and_stay_as_many():
    pool, behind = counted_pool()
    made, suppressed = private(pool, behind, LEAST)
    small = behind.clients < LEAST
    assert len(np.unique(made.profile[small])) == suppressed.client_groups
    for p in np.unique(made.profile[small]):
        assert behind.clients[made.profile == p].sum() >= LEAST
        assert len(np.unique(made.rate_factor[made.profile == p])) == 1
    # as unequal as before: groups are of clients alike in size
    mean = (made.rate_rps.sum(axis=1) * 600)[made.profile[small]]
    assert np.corrcoef(mean, behind.clients[small])[0, 1] > 0.8
    assert made.client_ids.tolist() == list(range(len(pool)))


def test_users_are_protected_where_the_log_names_them():
    pool, behind = counted_pool()
    users = np.where(np.arange(len(pool)) == 0, 25, 1)
    made, suppressed = private(pool, replace(behind, users=users), LEAST)
    assert suppressed.clients == len(pool) - 1
    of_profile = np.bincount(made.profile, users)
    assert (of_profile >= LEAST).all()


def test_windows_of_few_requests_have_the_rate_of_several():
    pool, behind = counted_pool()
    draft, changed, requests = even_windows(Draft.of(pool, behind.bins, behind.windows), LEAST)
    before, after = pool.rate_rps * 600, draft.rows["rate_rps"] * 600
    assert np.allclose(before.sum(axis=1), after.sum(axis=1))
    assert (after[0] == before[0]).all(), "every window of the largest client has enough"
    assert changed == (after != before).sum() > 0
    assert requests == behind.windows[after != before].sum()
    for c in range(4):  # runs of equal rates have enough; larger clients only, the others have too few in all
        edges = np.flatnonzero(np.diff(after[c]) != 0) + 1
        sums = [run.sum() for run in np.split(before[c], edges)]
        assert min(s for s in sums if s > 0) > LEAST - 1e-9
    active = draft.rows["rate_rps"] > 0
    assert (draft.rows["family"][active] == GAMMA).all()
    assert (draft.table[active] >= 0).all()


def test_what_is_of_a_few_parameters_stays():
    pool, behind = counted_pool()
    bins = behind.bins.copy()
    bins[pool.tables.offsets[0] : pool.tables.offsets[2]] = -1  # the first client's two tables
    made, _ = private(pool, replace(behind, bins=bins), LEAST)
    for lane in range(2):
        values, shares = made.tables.table(int(made.table[made.profile[0], 0, lane]))
        assert (values == pool.tables.table(lane)[0]).all()
        assert (shares == pool.tables.table(lane)[1]).all()


def test_one_changes_nothing_and_faults_are_refused():
    pool, behind = counted_pool()
    assert private(pool, behind, 1)[0] is pool
    with pytest.raises(OptionError, match="min_count"):
        private(pool, behind, 0)
    with pytest.raises(OptionError, match="counts behind bins of shape"):
        private(pool, replace(behind, bins=behind.bins[1:]), 10)
    with pytest.raises(OptionError, match="a log of at least 10,000 requests"):
        private(pool, behind, 10_000)


def test_models_of_conversations_keep_no_single_count():
    model = sg.TurnModel(
        0.3,
        turns=sg.distributions.Pmf([2, 3, 4, 97], [500, 30, 9, 1]),
        gap_s=sg.distributions.Histogram([0.123456, 1.5, 7.654321, 5432.109876], [20, 3, 40]),
        growth="history",
        new_tokens=sg.distributions.Pmf([10, 12, 800, 918_273], [50, 4, 8, 1]),
    )
    pool, behind = counted_pool()
    made, suppressed = private(pool.with_conversations(model), behind, LEAST)
    kept = made.turn_models[0]
    assert np.asarray(kept.turns.values).tolist() == [2, 3, 13]
    assert np.asarray(kept.turns.weights).tolist() == [500, 30, 10]
    assert np.asarray(kept.gap_s.edges).tolist() == [0.12, 1.5, 5400]
    assert np.asarray(kept.gap_s.weights).tolist() == [20, 43]
    assert np.asarray(kept.new_tokens.weights).tolist() == [50, 13]
    assert suppressed.turn_notes == ()
    stated = replace(model, turns=sg.distributions.Pmf([2, 3], [0.5, 0.25]), new_tokens=sg.distributions.Constant(3))
    made, suppressed = private(pool.with_conversations(stated), behind, LEAST)
    assert made.turn_models[0].turns is stated.turns
    assert len(suppressed.turn_notes) == 1


def talking_log(hours: int) -> sg.Trace:
    """A log with conversations that end after it does, so that numbers of turns are estimated and are no counts."""
    turns = sg.TurnModel(
        0.4, turns=sg.distributions.Pmf([2, 3, 4, 6, 9], [8, 4, 2, 1, 1]), gap_s=sg.distributions.LogNormal(60, 1)
    )
    pool = counted_pool()[0].with_conversations(turns)
    return sg.generate(pool, duration=f"{hours}h", seed=4)


@pytest.mark.parametrize("hours", [1, 12])
def test_no_time_of_a_conversation_is_left(hours: int):
    """Planted: the log's own times between turns and longest conversation, which a model without suppression has."""
    trace = talking_log(hours)
    order = np.lexsort((trace["turn"], trace["conversation"]))
    same = np.diff(trace["conversation"][order]) == 0
    gaps_s = np.diff(trace["arrival_us"][order])[same] / 1e6

    def edges(pool: sg.ClientPool) -> np.ndarray:
        gap = pool.turn_models[0].gap_s
        known = gap.edges if isinstance(gap, sg.distributions.Histogram) else [gap.max]
        return np.append(known, pool.turn_models[0].session_s)

    open_pool, hidden = sg.fit(trace), sg.fit(trace, min_count=LEAST)
    assert np.isin(edges(open_pool), gaps_s).any()
    assert all(float(f"{edge:.1e}") == edge for edge in edges(hidden).tolist())
    turns, gap = hidden.turn_models[0].turns, hidden.turn_models[0].gap_s
    assert np.asarray(turns.weights).min() >= LEAST
    assert not isinstance(gap, sg.distributions.Histogram) or np.asarray(gap.weights).min() >= LEAST
    means = [model.mean_turns for model in (open_pool.turn_models[0], hidden.turn_models[0])]
    assert means[1] == pytest.approx(means[0], rel=0.02)
    assert hidden.turn_models[0].session_s >= open_pool.turn_models[0].session_s


def test_models_of_few_conversations_have_rounded_values():
    model = sg.TurnModel(
        0.1,
        turns=sg.distributions.Pmf([2, 7], [0.75, 0.25]),
        gap_s=sg.distributions.Histogram([0.123456, 7.654321], [4]),
        growth="history",
        new_tokens=sg.distributions.Pmf([12, 918_273], [3, 1]),
        session_s=1234.56,
    )
    made, notes = private_model(model, LEAST, conversations=4)
    values = [distribution.value for distribution in (made.turns, made.gap_s, made.new_tokens)]
    assert values == [3, 4, 200_000]
    assert made.session_s == 1300
    assert len(notes) == 3


@pytest.mark.parametrize("least", [1, LEAST])
def test_no_row_of_the_log_is_found_in_the_files(tmp_path, least):
    """Planted: lengths of one request and names, looked for in all bytes; without suppression they are all there."""
    pool, behind = counted_pool()
    names = [f"customer-{c}-Umbrella" for c in range(len(pool))]
    made, suppressed = private(pool, behind, least)
    sg.save_profile(made, tmp_path / "fit", fit=suppressed.facts(), names=names, keep_names=least == 1)
    data = b"\0".join(file.read_bytes() for file in sorted((tmp_path / "fit").iterdir()))
    lengths = [PLANTED_INPUT, PLANTED_OUTPUT, PLANTED_SMALL]
    found = [str(n).encode() in data or struct.pack("<i", n) in data for n in lengths]
    ids = [str(i).encode() in data or struct.pack("<q", i) in data for i in pool.client_ids.tolist()]
    named = [name.encode() in data for name in names]
    assert all(found + ids + named) if least == 1 else not any(found + ids + named)
    if least == LEAST:
        single = set(np.concatenate([pool.tables.values[behind.bins == 1]]).tolist())
        common = set(pool.tables.values[behind.bins >= LEAST].tolist())
        assert made.tables.largest.max() < PLANTED_INPUT
        assert single - common  # so that the log has some
        sg.generate(sg.load_profile(tmp_path / "fit"), duration="1h", seed=1)


def test_lengths_stay_close():
    """No sampling: quantiles move by no more than the bins that were merged around them, here 10 %."""
    pool, behind = counted_pool()
    made, _ = private(pool, behind, LEAST)
    for lane in range(2):
        t, u = int(pool.table[0].max(axis=0)[lane]), int(made.table[made.profile[0]].max(axis=0)[lane])
        for level in (0.1, 0.5, 0.9, 0.98):
            before, after = pool.tables.quantile(level)[t], made.tables.quantile(level)[u]
            assert abs(np.log(after / before)) < 0.1
