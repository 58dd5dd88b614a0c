"""Packing: targets reach the cells, and what does not fit is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from profiles import tables_of, tiny_pool

import servegen_gpu as sg
from servegen_gpu.arrays import load_arrays, save_arrays
from servegen_gpu.errors import ProfileError
from servegen_gpu.law.dependence import mixing_matrix
from servegen_gpu.packed import PackedWorkload
from servegen_gpu.packing import pack
from servegen_gpu.plan import cells_of
from servegen_gpu.rates import resolve_rate


def packed(pool, rate=None, scale=None, **options):
    keywords = {"start_s": 0, "end_s": 7200} | options
    return pack(pool, resolve_rate(rate, scale), **keywords)[0]


@pytest.mark.parametrize("rate", [0.01, 3.0, 40_000.0])
def test_cells_of_a_window_add_up_to_its_target(rate):
    workload = packed(tiny_pool(clients=40, silent=True), rate=rate)
    windows = np.arange(len(workload.expected))
    cells = cells_of(workload, windows)
    requests = np.bincount(cells.window_index, weights=cells.expected_q32) / 2**32
    assert requests == pytest.approx(np.full(12, rate * 600), rel=1e-6)


def test_a_share_of_the_target_is_the_share_of_the_weights():
    pool = tiny_pool(clients=5, silent=False)
    cells = cells_of(packed(pool, rate=10.0), np.array([3]))
    share = pool.rate_rps[:, 3] / pool.rate_rps[:, 3].sum()
    assert cells.expected_q32 / 2**32 == pytest.approx(6000 * share, rel=1e-9)


def test_only_the_rows_and_tables_of_the_span_are_packed():
    pool = tiny_pool(clients=4)
    workload = packed(pool, scale=1.0, end_s=600)
    assert workload.rate_rps.shape == (4, 1)
    assert len(workload.tables.values) < len(pool.tables.values) / 3


def test_too_many_requests_of_one_client():
    with pytest.raises(sg.RateError, match="clone"):
        packed(tiny_pool(clients=1, silent=False), rate=4e6)


def test_one_window_with_too_many_requests_is_enough():
    pool = tiny_pool(clients=1, silent=False)
    with pytest.raises(sg.RateError, match="clone"):
        packed(pool, rate=[(0, 1.0), (1200, 4e6), (1800, 1.0)])
    packed(pool, rate=[(0, 1.0), (1200, 3.5e6), (1800, 1.0)])  # at which own rates are not the largest


def test_windows_beyond_the_address():
    with pytest.raises(sg.OptionError, match="16,777,216 windows"):
        packed(tiny_pool(clients=1, silent=False), scale=1.0, start_s=0, end_s=600.0 * 2**24 + 1)


def with_tables(pool, **histograms):
    """The pool with every client drawing the named fields from the given histograms."""
    names = list(histograms)
    extra = tables_of([histograms[name] for name in names])
    base = len(pool.tables)
    table = pool.table.copy()
    for at, name in enumerate(names):
        table[..., pool.fields.index(name)] = np.where(pool.rate_rps > 0, base + at, -1)
    return replace(pool, table=table, tables=type(extra).join([pool.tables, extra]))


def test_items_beyond_the_address():
    pool = with_tables(tiny_pool("multimodal"), image_count={1: 0.5, 262_145: 0.5})
    with pytest.raises(sg.OptionError, match=r"262,144 image_count.*262,145 of client \[0\]"):
        packed(pool, scale=1.0)
    only = pool.rate_rps > 0
    only[: only.argmax(axis=0).max() + 1] = False  # of later profiles, in windows that are not the first
    assert only.any()
    profile = int(np.argwhere(only)[0][0])
    table = np.where(only[..., None], pool.table, tiny_pool("multimodal").table)
    with pytest.raises(sg.OptionError, match=rf"of client \[{int(pool.client_ids[pool.profile == profile][0])}\]"):
        packed(replace(pool, table=table), scale=1.0)
    packed(with_tables(tiny_pool("multimodal"), image_count={1: 0.5, 65_536: 0.5}), scale=1.0)


def test_requests_whose_tokens_overflow():
    pool = with_tables(tiny_pool("multimodal"), image_count={3: 1.0}, image_tokens={2**30: 1.0})
    with pytest.raises(sg.OptionError, match="2,147,483,647 tokens of one request"):
        packed(pool, scale=1.0)


@pytest.mark.parametrize("text", [15, 16])
def test_tokens_of_a_request_are_those_of_text_and_items(text):
    pool = with_tables(
        tiny_pool("multimodal"), text_tokens={text: 1.0}, image_count={2: 1.0}, image_tokens={2**30 - 8: 1.0}
    )
    pool = with_tables(pool, audio_count={0: 1.0}, video_count={0: 1.0})
    if text < 16:
        packed(pool, scale=1.0)
        return
    with pytest.raises(sg.OptionError, match=r"tokens of one request.*2,147,483,648 of client"):
        packed(pool, scale=1.0)


def test_fields_are_tied_only_where_a_client_says_so():
    pool = tiny_pool(clients=4, dependent=True)  # rows -1, 0, 1, -1
    workload = packed(pool, scale=1.0)
    assert workload.dependence == "copula"
    assert workload.mixing_of.tolist() == [0, 1, 2, 0]
    assert np.array_equal(workload.mixing[0], np.eye(2))
    assert np.array_equal(workload.mixing[1:], [mixing_matrix(matrix) for matrix in pool.correlations])
    one = packed(pool.select([0, 2]), scale=1.0)
    assert one.mixing_of.tolist() == [0, 0, 1, 0]
    assert len(one.mixing) == 2
    for nobody in (pool.select([0, 3]), replace(pool, correlations=np.stack([np.eye(2)] * 2))):
        workload = packed(nobody, scale=1.0)
        assert workload.dependence == "independent"
        assert not workload.mixing_of.any()
    assert packed(pool, scale=1.0, dependence="independent").dependence == "independent"
    assert packed(pool, scale=1.0, dependence="comonotone").dependence == "comonotone"


def test_gaps_have_their_mean_where_only_some_counts_are_drawn():
    pool = tiny_pool(clients=2, silent=False)
    both = replace(pool, measured=np.array([True, False]))
    drawn = packed(replace(pool, measured=np.zeros(2, np.bool_)), scale=1.0).log_mean_gap
    assert np.array_equal(packed(both, scale=1.0).log_mean_gap[1], drawn[1])
    assert drawn[1].any()


def test_one_matrix_for_all_clients():
    pool = tiny_pool(clients=4, dependent=True)
    workload = packed(pool, scale=1.0, dependence="copula", rank_correlation=pool.correlations[1])
    assert workload.mixing_of.tolist() == [1, 1, 1, 1]
    assert np.array_equal(workload.mixing[1], mixing_matrix(pool.correlations[1]))
    for rule in ("auto", "independent", "comonotone"):
        with pytest.raises(sg.OptionError, match="only with dependence='copula'"):
            packed(pool, scale=1.0, dependence=rule, rank_correlation=pool.correlations[1])


def test_limits_of_clients_that_are_there():
    pool = tiny_pool(clients=4, contexts=(0, 100, 0, 7))
    assert packed(pool, scale=1.0).context_tokens.tolist() == [0, 100, 0, 7]
    assert packed(pool.select([0, 1]), scale=1.0).context_tokens.tolist() == [0, 100, 0, 0]
    assert packed(pool, scale=1.0).limited
    assert not packed(pool.select([0, 2]), scale=1.0).limited


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0.5], [0.4, 1]],
        [[1, 1.5], [1.5, 1]],
        [[1, np.nan], [np.nan, 1]],
        [[0.9, 0.5], [0.5, 0.9]],
        [[1.0]],
        "much",
    ],
)
def test_matrices_that_are_no_correlations(matrix):
    with pytest.raises(sg.OptionError, match="Spearman"):
        packed(tiny_pool(), scale=1.0, dependence="copula", rank_correlation=matrix)


@pytest.mark.parametrize(
    "option", [{"counts": "most"}, {"dependence": "some"}, {"occupancy": "x"}, {"empty": "?"}, {"past_end": "later"}]
)
def test_unknown_rules(option):
    with pytest.raises(sg.OptionError, match="choose one"):
        sg.generate(tiny_pool(), **option)


def test_files_of_another_format_are_refused(tmp_path):
    path = tmp_path / "packed.npz"
    packed(tiny_pool(), scale=1.0).save(path)
    header, arrays = load_arrays(path)
    assert np.array_equal(PackedWorkload.load(path).rate_rps, arrays["rate_rps"])
    for other in (header | {"format": 1}, {name: value for name, value in header.items() if name != "format"}):
        save_arrays(path, other, arrays)
        with pytest.raises(ProfileError, match=r"packed\.npz; pack and save it again"):
            PackedWorkload.load(path)
