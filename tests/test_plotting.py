"""Pictures: what they are made of against NumPy over the whole trace, and what is drawn for which trace."""

from __future__ import annotations

import re
import sys
from xml.dom import minidom

import numpy as np
import pytest
from pictured import cut, made, seen_of
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.comparing.histograms import PAIR_SIDE, Counts, gap_bin, pair_bin, points_of
from servegen_gpu.errors import OptionError
from servegen_gpu.plotting import by_client, curves
from servegen_gpu.plotting.by_client import ByClient
from servegen_gpu.plotting.families import gap_families, length_family
from servegen_gpu.plotting.plots import DRAWN, Plots
from servegen_gpu.plotting.seen import SHARE_STEPS, pictured
from servegen_gpu.plotting.style import svg_of

EVERY = {"rate", "gaps", "windows", "input_tokens", "output_tokens", "pairs", "means", "skew", "clients", "top_clients"}
DRAWN_OF = {
    "m-small": EVERY,
    "deepseek-r1": EVERY
    | {"reason_tokens", "answer_tokens", "new_tokens", "reasoning", "reason_pairs", "conversations", "reuse"},
    "mm-omni": EVERY | {"text_tokens", "items", "item_shares"},
}


def by_hand(trace: sg.Trace, bin_s: int) -> dict[tuple[int, int], np.ndarray]:
    """Requests, input, output, gaps, their sum and sum of squares, by client and bin, client after client."""
    found = {}
    for client in np.unique(trace["client"]).tolist():
        own = trace["client"] == client
        at_us = trace["arrival_us"][own]
        of = at_us // (bin_s * 10**6)
        gap_s = np.diff(at_us) / 1e6
        for one in np.unique(of).tolist():
            here, ends = of == one, of[1:] == one
            tokens = (trace[name][own][here].sum() for name in ("input_tokens", "output_tokens"))
            sums = here.sum(), *tokens, ends.sum(), gap_s[ends].sum(), (gap_s[ends] ** 2).sum()
            found[client, one] = np.array(sums, np.float64)
    return found


def kept(found: ByClient) -> dict[tuple[int, int], np.ndarray]:
    """The same of what was kept."""
    cells = {}
    for at, client in enumerate(found.ids.tolist()):
        for one in np.flatnonzero(found.sums["requests"][:, at]).tolist():
            rows = [found.sums[name] for name in by_client.SUMS]
            cells[client, one] = np.array([grid[one, at] if one < len(grid) else 0 for grid in rows])
    return cells


@pytest.mark.parametrize(("most", "rows"), [(1 << 20, 10**9), (1 << 20, 61), (1 << 9, 1009)])
def test_sums_by_client_are_those_of_a_loop_in_any_slabs(monkeypatch, most, rows):
    monkeypatch.setattr(by_client, "MOST_CELLS", most)
    trace = made("m-small")
    trace = sg.Trace(dict(trace.columns) | {"client": trace["client"] * 30_000_000})  # ids far apart
    found = ByClient()
    for slab in cut(trace, rows):
        found.add(slab)
    assert found.bin_s == {1 << 20: 16, 1 << 9: 256}[most]  # 1,200 s in 128 bins at most, or in 8
    expected = by_hand(trace, found.bin_s)
    assert kept(found).keys() == expected.keys()
    for cell, sums in kept(found).items():
        np.testing.assert_allclose(sums, expected[cell], rtol=1e-9)
    counts = dict(zip(*np.unique(trace["client"], return_counts=True), strict=True))
    largest = [found.ids[at] for at in found.largest(5)]
    assert largest == sorted(counts, key=lambda client: (-counts[client], client))[:5]
    assert sum(grid.size for grid in found.sums.values()) <= 2 * len(by_client.SUMS) * most


def test_too_many_clients_are_not_kept(monkeypatch):
    monkeypatch.setattr(by_client, "MOST_CELLS", 64)
    found = ByClient()
    found.add(made("m-small"))
    assert found.full
    assert not len(found.largest(3))


@pytest.mark.parametrize("name", DRAWN_OF)
def test_slabs_change_nothing(name):
    trace = made(name)
    whole, parts = seen_of(name), pictured(cut(trace, 811))
    for one, other in zip(whole.seen.cells.values(), parts.seen.cells.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert whole.modal_shares.keys() == parts.modal_shares.keys()
    for column, shares in whole.modal_shares.items():
        np.testing.assert_array_equal(shares, parts.modal_shares[column])
    assert str(whole.answers.points()) == str(parts.answers.points())
    assert str(whole.reason_pairs) == str(parts.reason_pairs)
    assert kept(whole.by_client).keys() == kept(parts.by_client).keys()
    drawn = [Plots(data).drawing("lengths" if False else "input_tokens") for data in (whole, parts)]
    assert drawn[0].caption == drawn[1].caption


def test_shares_of_items_and_answers_are_those_of_a_loop():
    trace = made("mm-omni")
    found = pictured(trace).modal_shares
    for column in ("image_tokens", "audio_tokens", "video_tokens"):
        sums = [int(trace[column][row].sum()) for row in range(len(trace))]
        steps = [
            min(s * SHARE_STEPS // max(n, 1), SHARE_STEPS) for s, n in zip(sums, trace["input_tokens"], strict=True)
        ]
        np.testing.assert_array_equal(found[column], np.bincount(steps, minlength=SHARE_STEPS + 1))
    reasons = made("deepseek-r1")
    kept = pictured(reasons)
    answers = reasons["output_tokens"] - reasons["reason_tokens"]
    np.testing.assert_array_equal(kept.answers.points(), np.unique(answers, return_counts=True))
    assert kept.reason_pairs.sum() == len(reasons)


def test_families_are_those_of_scipy():
    """Maximum likelihood on the same 20,000 gaps; bins of 0.1 % move shapes by less than 1 %."""
    rng = np.random.default_rng(4)
    gap_us = np.maximum(np.rint(rng.gamma(0.4, 1e6, 20_000)), 1).astype(np.int64)
    gaps = Counts()
    gaps.add(gap_bin(np.append(gap_us, [0, 0])))
    exponential, gamma, weibull = gap_families(gaps)
    shape = stats.gamma.fit(gap_us / 1e6, floc=0)[0]
    power, _, scale = stats.weibull_min.fit(gap_us / 1e6, floc=0)
    assert gamma.about == f"shape {shape:.3g}"
    assert weibull.about == f"shape {power:.3g}"
    at = np.geomspace(1e-4, 3, 20)
    np.testing.assert_allclose(weibull.at_most(at), stats.weibull_min.cdf(at, power, scale=scale), atol=2e-3)
    for family, law in (
        (exponential, stats.expon(scale=gap_us.mean() / 1e6)),
        (gamma, stats.gamma(shape, scale=gap_us.mean() / 1e6 / shape)),
    ):
        assert family.ks == pytest.approx(stats.kstest(gap_us / 1e6, law.cdf).statistic, abs=2e-3)
    assert gamma.ks < weibull.ks < exponential.ks
    assert gap_families(Counts()) == ()


def test_lengths_have_the_family_of_the_paper():
    rng = np.random.default_rng(5)
    inputs, outputs = Counts(), Counts()
    inputs.add(np.rint(rng.lognormal(6, 0.8, 20_000)).astype(np.int64))
    outputs.add(np.rint(rng.exponential(300, 20_000)).astype(np.int64))
    assert length_family(inputs, "input_tokens").name == "log-normal + Pareto"
    assert length_family(inputs, "input_tokens").ks < 0.02
    assert length_family(outputs, "output_tokens").ks < 0.02  # 20,000 exponential ones: 0.012 in 99 % of cases
    assert length_family(inputs, "output_tokens").ks > 0.1  # log-normal ones are not exponential
    few = Counts()
    few.add(np.array([1, 2, 3]))
    assert length_family(few, "input_tokens") is None


def test_curves_are_those_of_numpy():
    rng = np.random.default_rng(6)
    values = np.rint(rng.lognormal(5, 1.5, 50_000)).astype(np.int64)
    points = points_of(values)
    edges = curves.log_cells(1, values.max(), whole=True)
    expected = np.histogram(values, edges)[0] / len(values) / np.diff(np.log10(edges))
    np.testing.assert_allclose(curves.density(points, edges), expected)
    assert curves.density(points, edges) @ np.diff(np.log10(edges)) == pytest.approx((values > 0).mean())
    x, share = curves.tail(points)
    assert len(x) <= 2 * curves.POINTS
    np.testing.assert_allclose(share, [(values >= one).mean() for one in x])
    assert x[-1] == values.max()
    x, share = curves.cdf(points)
    np.testing.assert_allclose(share, [(values <= one).mean() for one in x])
    first, second = values[:25_000], values[25_000:]
    pairs = np.bincount(pair_bin(first, second), minlength=PAIR_SIDE**2)
    edges, square = curves.shaded(pairs)
    np.testing.assert_array_equal(square, np.histogram2d(first, second, (edges - 1e-9, edges - 1e-9))[0])
    middles, found = curves.quantiles_by_cell(pairs, (0.5, 0.95))
    cell = np.searchsorted(edges - 1e-9, first, side="right") - 1
    for at, middle in enumerate(middles):
        own = second[cell == np.searchsorted(edges, middle) - 1]
        np.testing.assert_allclose(
            1 + found[:, at], 1 + np.quantile(own, (0.5, 0.95), method="inverted_cdf"), rtol=0.05
        )


def test_windows_are_those_of_in_windows():
    trace = made("m-small")
    seen = pictured(trace).seen
    found, expected = curves.windows(seen, 30), sg.in_windows(trace, 30)
    np.testing.assert_allclose(found.rate_rps, expected.rate_rps)
    np.testing.assert_allclose(found.mean("input_tokens"), expected.mean("input_tokens"))
    assert curves.window_for(seen) == 5
    assert curves.window_for(seen, requests=1000) == 300
    at_us, inside = trace["arrival_us"], (trace["arrival_us"] // 30_000_000) == 7
    gap_s = np.diff(at_us)[inside[1:]] / 1e6
    assert found.gap_cv[7] == pytest.approx(gap_s.std() / gap_s.mean())


@pytest.mark.parametrize("name", DRAWN_OF)
def test_a_trace_has_the_pictures_of_its_columns(name):
    plots = Plots(seen_of(name))
    assert all(hasattr(plots, call.split("(")[0]) for call in repr(plots)[len("<Plots: ") : -1].split(", "))
    drawings = {one: drawing for one in DRAWN if (drawing := plots.drawing(one)) is not None}
    assert drawings.keys() == DRAWN_OF[name]
    for drawing in drawings.values():
        assert any(axes.lines or axes.patches for axes in drawing.figure.axes)
        assert any(letter.isdigit() for letter in drawing.caption)
        assert drawing.alt.endswith(".")
    both = Plots(seen_of(name), seen_of(name, 1))
    for one in DRAWN_OF[name]:
        caption = both.drawing(one).caption
        assert f"{name} (first): " in caption
        assert (f"{name} (second): " in caption) == (one != "top_clients")


def test_what_is_drawn_is_what_was_counted():
    trace = made("m-small")
    heights, edges, _ = trace.plot.gaps().axes[0].patches[0].get_data()
    gap_s = np.diff(trace["arrival_us"])[np.diff(trace["arrival_us"]) > 0] / 1e6
    np.testing.assert_allclose(heights @ np.diff(np.log10(edges)), 1)
    np.testing.assert_allclose(
        heights, np.histogram(gap_s, edges)[0] / len(gap_s) / np.diff(np.log10(edges)), atol=0.02
    )
    (line,) = trace.plot.skew().axes[0].lines[:1]
    most = np.sort(np.bincount(trace["client"]))[::-1]
    np.testing.assert_allclose(line.get_ydata(), (np.cumsum(most) / len(trace))[line.get_xdata().astype(int) - 1])
    hours, rates = trace.plot.rate().axes[0].lines[0].get_data()
    assert rates.sum() * 5 == pytest.approx(len(trace))
    assert len(hours) == 240


def test_pictures_that_a_trace_has_not_are_refused():
    trace = made("m-small")
    with pytest.raises(OptionError, match=r"a trace with items.* requests with columns arrival_us, client"):
        trace.plot.items()
    with pytest.raises(OptionError, match="a column among input_tokens"):
        trace.plot.lengths("client")
    with pytest.raises(OptionError, match="a picture among rate, gaps"):
        trace.plot.drawing("pie")
    with pytest.raises(OptionError, match="two different inter-arrival times, got 1 requests"):
        trace[:1].plot.gaps()
    with pytest.raises(OptionError, match="a Trace, or an iterable of its slabs"):
        sg.plots(7).rate()


@pytest.mark.parametrize(("name", "rows"), [("deepseek-r1", 0), ("deepseek-r1", 2), ("mm-omni", 1)])
def test_traces_of_few_requests_have_few_pictures(name, rows):
    few, many = made(name)[:rows], seen_of(name)
    for plots in (few.plot, Plots(few, many), Plots(many, few)):
        drawn = [one for one in DRAWN if plots.drawing(one) is not None]
        assert bool(drawn) == (len(plots.sides) > 1 or rows > 0)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, {"rate", "gaps"}),
        ({"output_tokens": np.zeros(50, np.int64)}, {"rate", "gaps", "windows", "means"}),
        ({"arrival_us": np.zeros(50, np.int64), "input_tokens": np.ones(50, np.int64)}, {"input_tokens"}),
        (
            {"arrival_us": np.append(np.zeros(49, np.int64), 2**52), "output_tokens": np.full(50, 2**31 - 1)},
            {"rate", "windows", "output_tokens", "means"},
        ),
        (
            {"input_tokens": np.ones(50, np.int64), "image_tokens": [[]] * 50, "hash_ids": [[]] * 50},
            {"rate", "gaps", "windows", "input_tokens", "means"},
        ),
    ],
)
def test_odd_traces_are_drawn_where_there_is_something_to_draw(columns, expected):
    plots = sg.Trace({"arrival_us": np.arange(50) ** 2 * 40_000} | columns).plot
    assert {one for one in DRAWN if plots.drawing(one) is not None} == expected


def test_a_notebook_counts_items_as_items():
    trace = made("mm-omni")
    said = trace._repr_html_()
    row = re.search(r"<td[^>]*>image items</td><td>([^<]*)</td>", said)
    assert row is not None
    assert float(row[1]) == pytest.approx(trace["image_tokens"].lengths.mean(), rel=0.01)
    assert "image_tokens" not in said.split("The first requests")[0]


def test_figures_are_the_same_bytes_and_hold_any_text():
    plots = Plots(seen_of("m-small"), seen_of("m-small", 1), names=["$\\frac{<script>", "&\x00\u202e'\"模"])
    texts = [svg_of(plots.skew()) for _ in range(2)]
    assert plots.skew()._repr_png_().startswith(b"\x89PNG")
    assert texts[0] == texts[1]
    minidom.parseString(texts[0])
    assert "<script" not in texts[0]


def test_without_matplotlib_pictures_say_what_to_install(monkeypatch):
    trace = made("m-small")
    assert "<img" in trace._repr_html_()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    install = re.escape('install it: pip install "servegen-gpu[plot]"')
    with pytest.raises(OptionError, match=f"matplotlib for pictures, got .*; {install}"):
        trace.plot.rate()
    said = trace._repr_html_()
    assert "<img" not in said
    assert f"{len(trace):,} requests in 20 min" in said
    assert "input_tokens" in said


def test_a_panel_without_a_line_is_left_out():
    """Two clients a second apart: bins have too few gaps for a CV."""
    trace = sg.Trace({"arrival_us": np.arange(120) * 10**6, "client": np.arange(120) % 2})
    panels = trace.plot.top_clients().axes
    assert [axes.get_title("left") for axes in panels] == ["Rate, requests/s"]
