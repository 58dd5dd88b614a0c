"""Lengths of a log: counts, knots, least counts, parametric forms, and how far each is from the log."""

from __future__ import annotations

import numpy as np
import pytest

import servegen_gpu as sg
from servegen_gpu import distributions as d
from servegen_gpu.baselines.of_trace import lengths as fields_of
from servegen_gpu.errors import OptionError
from servegen_gpu.fitting.lengths import (
    FORMS,
    default_forms,
    distance,
    distributions_of,
    field_tables,
    length_fit,
    length_tables,
    scalar_values,
    tables_of_tally,
)
from servegen_gpu.fitting.mixture import fit_mixture
from servegen_gpu.fitting.tallies import knots, tally


def long_tailed(n: int = 50_000, seed: int = 1) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(6, 1.6, n)).astype(np.int64)


def labelled(n: int = 20_000, labels: int = 7, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Values of labels of very different sizes."""
    rng = np.random.default_rng(seed)
    label = np.minimum(rng.geometric(0.4, n) - 1, labels - 1)
    return rng.geometric(0.02 / (1 + label)), label


def test_counts_are_kept_by_label():
    values, label = labelled()
    label[label == 3] = 4  # a label without values
    counted = tally(values, label, 7)
    tables = length_tables(values, label, 7)
    for one in range(7):
        seen, times = np.unique(values[label == one], return_counts=True)
        drawn, share = tables.table(one)
        if one == 3:
            assert (drawn.tolist(), share.tolist(), counted.totals[one]) == ([0], [1.0], 0)
            continue
        assert drawn.tolist() == seen.tolist()
        assert np.abs(share - times / times.sum()).max() < 2**-30
        assert counted.totals[one] == times.sum()


def test_knots_keep_the_top_and_few_bins():
    values = long_tailed()
    counted = tally(values, np.zeros(len(values), np.int64), 1)
    few = knots(counted)
    top = few.values > np.quantile(values, 0.9901)
    assert (few.before + few.counts < 0.99 * len(values)).sum() <= 256
    seen, times = np.unique(values[values > np.quantile(values, 0.9901)], return_counts=True)
    assert np.array_equal(few.values[top], seen)
    assert np.array_equal(few.counts[top], times)
    assert few.counts.sum() == len(values)
    assert abs(few.values @ few.counts / len(values) / values.mean() - 1) < 1e-3
    assert distance(few.tables(), few.totals, values) <= 1 / 256
    # planted defect: 64 quantiles, even between them
    edges = np.unique(np.quantile(values, np.linspace(0, 1, 65)))
    coarse = length_tables(values, np.zeros(len(values), np.int64), 1, form="knots").quantile(0.99)[0]
    assert coarse == np.quantile(values, 0.99, method="inverted_cdf")
    assert np.interp(0.99, np.linspace(0, 1, len(edges)), edges) > 1.5 * coarse


def test_knots_leave_small_labels_alone():
    values, label = labelled()
    few = knots(tally(values, label, 7), most=100)
    many = np.diff(tally(values, label, 7).offsets)
    assert (np.diff(few.offsets)[many <= 100] == many[many <= 100]).all()
    assert (np.diff(few.offsets)[many > 100] < many[many > 100]).all()


def test_the_mixture_is_found_again():
    """Standard errors at 200,000 values: below 0.4 % of median and sigma, 1 % of alpha; the scale is one of a grid."""
    rng = np.random.default_rng(3)
    n = 200_000
    body = np.exp(np.log(400) + 0.6 * rng.normal(size=n))
    values = np.rint(np.where(rng.random(n) < 0.8, body, 1_500 * rng.random(n) ** (-1 / 2.2))).astype(np.int64)
    seen, times = np.unique(np.maximum(values, 1), return_counts=True)
    found = fit_mixture(seen, times)
    assert found.body_weight == pytest.approx(0.8, abs=0.03)
    assert found.median == pytest.approx(400, rel=0.05)
    assert found.sigma == pytest.approx(0.6, rel=0.05)
    assert found.alpha == pytest.approx(2.2, rel=0.05)
    assert found.scale == pytest.approx(1_500, rel=0.1)
    zero = np.zeros(n, np.int64)
    assert length_fit(values, zero, 1, "parametric").ks_later < 0.012
    assert length_fit(values, zero, 1, "exponential").ks_later > 0.1


def test_forms_can_be_written_down():
    values = long_tailed()
    counted = tally(values, values % 2, 3)  # of which the last has none
    mixed = distributions_of(counted, "parametric")
    assert [type(one) for one in mixed] == [d.Mixture, d.Mixture, d.Constant]
    mean = distributions_of(counted, "exponential")
    assert isinstance(mean[0], d.Exponential)
    assert mean[0].mean == pytest.approx(values[values % 2 == 0].mean())
    with pytest.raises(OptionError, match="parametric or exponential"):
        distributions_of(counted, "counts")
    with pytest.raises(OptionError, match="a form among counts"):
        tables_of_tally(counted, "gamma")  # type: ignore[arg-type]


def test_distances_tell_forms_apart():
    rng = np.random.default_rng(4)
    values = np.maximum(rng.exponential(300, 40_000), 1).astype(np.int64)
    zero = np.zeros(len(values), np.int64)
    fits = {form: length_fit(values, zero, 1, form, "output_tokens") for form in FORMS}
    assert fits["counts"].ks < 1e-9
    assert fits["counts"].ks_later == pytest.approx(fits["counts"].floor, abs=1e-9)
    assert fits["knots"].ks < 1 / 256
    assert fits["exponential"].ks < 0.01
    wrong = length_fit(long_tailed(), np.zeros(50_000, np.int64), 1, "exponential")
    assert wrong.ks > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_odd_logs_have_tables(form):
    for values in ([5], [0], [0, 0, 0], [7] * 50, [0, 1], [1, 2**20]):
        array = np.array(values)
        tables = length_tables(array, np.zeros(len(array), np.int64), 2, form=form)
        assert len(tables) == 2
        assert tables.smallest[0] >= min(values)
        assert tables.largest[0] <= max(values)
        assert tables.largest[1] == 0
        fit = length_fit(array, np.zeros(len(array), np.int64), 1, form)
        assert 0 <= fit.ks <= 1
        assert np.isnan(fit.ks_later) == (len(array) == 1)


def test_all_fields_of_a_category():
    rng = np.random.default_rng(5)
    n = 3_000
    output = rng.integers(0, 200, n)
    reason = rng.binomial(output, 0.7)
    columns = {"arrival_us": np.arange(n), "input_tokens": rng.integers(1, 500, n), "output_tokens": output}
    trace = sg.Trace(columns | {"reason_tokens": reason})
    found = fields_of(trace, "reason")
    label = rng.integers(0, 3, n)
    made = field_tables(found, label, 3, form=default_forms("reason"))
    assert made.row.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    stated = np.repeat(np.arange(9) < 6, np.diff(made.tables.offsets))
    assert ((made.requests < 0) == stated).all()
    assert made.requests[~stated].sum() == len(found["reason_ratio"][0])
    row, ratio = found["reason_ratio"]
    exact = field_tables(found, label, 3)
    assert exact.tables.means[7] == pytest.approx(ratio[label[row] == 1].mean())
    scalar = scalar_values(found, "reason", n)
    assert np.array_equal(scalar[2, output > 0], ratio)
    assert not scalar[2, output == 0].any()


def test_items_of_each_modality():
    images = [[100, 200], [], [300], [100]] * 50
    n = len(images)
    columns = {"arrival_us": np.arange(n), "output_tokens": np.full(n, 9), "image_tokens": images}
    text = np.full(n, 10)
    total = text + [sum(one) for one in images]
    trace = sg.Trace(columns | {"text_tokens": text, "input_tokens": total})
    found = fields_of(trace, "multimodal")
    made = field_tables(found, np.arange(n) % 2, 2)
    means = dict(zip(found, made.tables.means.reshape(-1, 2).tolist(), strict=True))
    assert means["image_count"] == pytest.approx([1.5, 0.5])
    assert means["image_tokens"] == pytest.approx([200, 100])
    assert means["audio_tokens"] == [0, 0]  # nobody has any


def test_forms_of_few_parameters_end_where_enough_requests_are():
    rng = np.random.default_rng(5)
    value = np.append(np.ceil(rng.lognormal(6, 1, 2_000)), [1, 918_273]).astype(np.int64)
    found = {"input_tokens": (np.arange(len(value)), value)}
    label = np.arange(len(value)) % 2
    for least in (1, 10):
        tables = field_tables(found, label, 2, form="parametric", least=least).tables
        for one in range(2):
            mine = np.sort(value[label == one])
            drawn = tables.table(one)[0]
            assert mine[least - 1] <= drawn.min()
            assert drawn.max() <= mine[-least]
    cut = tally(value, label, 3).clipped(10)
    assert cut.totals.tolist() == [1001, 1001, 0]
    assert np.minimum(cut.counts[cut.offsets[:2]], cut.counts[cut.offsets[1:3] - 1]).min() >= 10
    assert tally(np.array([7, 9, 11]), np.zeros(3, int), 1).clipped(10).values.tolist() == [9]
