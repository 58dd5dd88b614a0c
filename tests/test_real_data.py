"""The released profiles, end to end: figures that were computed apart from the package, mostly from the raw files."""

from __future__ import annotations

import ast
import csv
import json
from typing import Any

import numpy as np
import pytest
from gates import check, passes
from profiles import REAL_DATA, needs_real_data
from scipy import special, stats

import servegen_gpu as sg
from servegen_gpu.clients.pool import ClientPool

pytestmark = [needs_real_data, pytest.mark.statistical]

WINDOW_US = 600_000_000
R1, MM = REAL_DATA / "reason" / "deepseek-r1", REAL_DATA / "multimodal" / "mm-image"


@pytest.fixture(scope="module")
def r1() -> ClientPool:
    return sg.load_servegen(REAL_DATA, "deepseek-r1", cache=False)


@pytest.fixture(scope="module")
def mm() -> ClientPool:
    return sg.load_servegen(REAL_DATA, "mm-image", cache=False)


def raw_traces(directory: Any) -> dict[int, list[list[str]]]:
    """Rows of the trace files by client: start, rate, cv, family, shape, scale."""
    files = {int(path.name.split("-")[1]): path for path in directory.glob("chunk-*-trace.csv")}
    return {client: list(csv.reader(path.read_text().splitlines())) for client, path in files.items()}


def raw_histogram(directory: Any, client: int, slot_s: int, field: str) -> dict[float, float]:
    data = json.loads((directory / f"chunk-{client}-dataset.json").read_text())
    return ast.literal_eval(data[str(slot_s)][field])


def fits(sample: np.ndarray, histogram: dict[float, float]) -> float:
    """Chi-square p-value of a sample of a histogram, rare neighbours joined."""
    values = np.array([v for v, p in histogram.items() if p > 0])
    weights = np.array([p for p in histogram.values() if p > 0])
    place = np.searchsorted(values, sample)
    assert np.array_equal(values[np.minimum(place, len(values) - 1)], sample)
    expected = weights / weights.sum() * len(sample)
    group = np.unique((np.cumsum(expected) - expected / 2) // 25, return_inverse=True)[1]
    observed = np.bincount(group, np.bincount(place, minlength=len(values)))
    return float(stats.chisquare(observed, np.bincount(group, expected)).pvalue) if group[-1] else 1.0


# -- counts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_hour_of_r1_at_100(r1: ClientPool, seed: int) -> None:
    trace = sg.generate(r1, rate=100, duration="1h", seed=seed)
    assert abs(len(trace) - 360_000) <= 40
    assert (np.diff(trace["arrival_us"]) >= 0).all()
    assert trace["arrival_us"][-1] < 3600 * 10**6


@pytest.mark.parametrize("start", ["0h", "10h"])
def test_25_915_clients_at_16(r1: ClientPool, start: str) -> None:
    """Each cell of mean m + p, p its fraction, adds p (1 - p) to the variance: sd 36 at 0 h and 34 at 10 h."""
    pool = r1.clone(355)
    assert len(pool) == 25_915
    window = {"0h": 0, "10h": 60}[start]
    mean = np.repeat(r1.rate_rps[:, window] * 600, 355) / 355 * (16 / r1.own_rps[window])
    assert abs(mean.sum() - 9600) < 1e-6
    sd = float(np.sqrt(((mean % 1) * (1 - mean % 1)).sum()))
    assert abs(sd - {"0h": 36, "10h": 34}[start]) < 1
    trace = sg.generate(pool, rate=16, start=start, duration=600)
    assert abs(len(trace) - 9600) < 3 * sd
    number = [len(sg.generate(pool, rate=16, start=start, duration=600, replica=r)) for r in range(1, 31)]
    check(2 * stats.norm.sf(abs(np.mean(number) - 9600) / (sd / 30**0.5)), "mean number")
    spread = stats.chi2(30).cdf(((np.array(number) - 9600) ** 2).sum() / sd**2)
    check(2 * min(spread, 1 - spread), "variance of the number")


@pytest.mark.parametrize(("workload", "directory"), [("r1", R1), ("mm", MM)])
def test_own_counts_are_those_of_the_log(workload: str, directory: Any, request: pytest.FixtureRequest) -> None:
    trace = sg.generate(request.getfixturevalue(workload), duration="24h")
    key = trace["client"].astype(np.int64) * 144 + trace["arrival_us"] // WINDOW_US
    clients, count = np.unique(key, return_counts=True)
    listed = {
        client * 144 + int(row[0]) // 600: round(float(row[1]) * 600)
        for client, table in raw_traces(directory).items()
        for row in table
        if float(row[1])
    }
    assert dict(zip(clients.tolist(), count.tolist(), strict=True)) == listed


def test_bursts_stay_as_short_as_they_were(r1: ClientPool) -> None:
    """Where rate * shape * scale is below 1, a Gamma window's requests cover that part of the window."""
    own, scaled = sg.generate(r1, duration="24h"), sg.generate(r1, duration="24h", scale=3)
    seen = 0
    for client, table in raw_traces(R1).items():
        for row in table:
            if row[3] != "Gamma" or not float(row[1]):
                continue
            f = float(row[1]) * float(row[4]) * float(row[5])
            if f > 0.3:
                continue
            for trace in (own, scaled):
                a, b = np.searchsorted(trace["arrival_us"], [int(row[0]) * 10**6, (int(row[0]) + 600) * 10**6])
                place = trace["arrival_us"][a:b][trace["client"][a:b] == client] / 1e6
                empty = np.diff(place, append=place[0] + 600).max()
                assert empty >= 600 * (1 - f) - 1e-3
            seen += 1
    assert seen > 50


# -- variance ----------------------------------------------------------------------------------------------------------


def test_renewal_counts_of_r1_vary_as_renewal_theory_says(r1: ClientPool) -> None:
    """Ten minutes from 10 h: the variance tends to the sum of CV^2 lambda T, 159,000; `exact` counts hardly vary."""
    active = np.flatnonzero(r1.rate_rps[:, 60] > 0)
    shape, mean = r1.shape[active, 60], r1.rate_rps[active, 60] * 600
    weibull = special.gamma(1 + 2 / shape) / special.gamma(1 + 1 / shape) ** 2 - 1
    cv2 = np.where(r1.family[active, 60] == 2, 1 / shape, weibull)
    theory = float((cv2 * mean).sum())
    assert abs(theory - 159_000) < 500
    keywords: dict[str, Any] = {"start": "10h", "duration": 600}
    number = np.array([len(sg.generate(r1, counts="renewal", replica=i, **keywords)) for i in range(200)])
    assert 0.7 < number.var(ddof=1) / theory < 1.3
    assert abs(number.mean() - 8299) < 5 * np.sqrt(theory / 200)
    exact = {len(sg.generate(r1, counts="exact", replica=i, **keywords)) for i in range(10)}
    assert max(exact) - min(exact) < 20


def edge_density(pool: ClientPool, hours: int, edge_s: float, **keywords: Any) -> tuple[np.ndarray, np.ndarray]:
    """Density in the first and last part of windows at 1,000 req/s, relative to the mean, and standard errors."""
    windows = 6 * hours
    found = np.zeros((2, windows))
    for slab in sg.stream(pool, rate=1000, duration=3600 * hours, **keywords):
        window, place = np.divmod(slab["arrival_us"], WINDOW_US)
        for side, inside in enumerate((place < edge_s * 1e6, place >= WINDOW_US - edge_s * 1e6)):
            found[side] += np.bincount(window[inside], minlength=windows)
    found /= 1000 * edge_s
    return found.mean(axis=1), found.std(axis=1, ddof=1) / np.sqrt(windows)


def test_windows_do_not_show_at_their_edges(r1: ClientPool) -> None:
    """Three hours, 180 requests expected in each 10 ms edge; bench/check_counts.py does the whole day."""
    density, error = edge_density(r1, 3, 0.01)
    assert (np.abs(density - 1) < 0.15 + 3 * error).all()
    assert (np.abs(density - 1) < 4 * error).all()
    density, error = edge_density(r1, 3, 0.01, counts="servegen")
    assert (density > 1.2).all()
    assert (density > 1 + 3 * error).all()


# -- lengths -----------------------------------------------------------------------------------------------------------


def test_lengths_of_r1_are_those_of_the_files(r1: ClientPool) -> None:
    trace = sg.generate(r1.select([35]), start="6h", duration="6h", rate=10, empty="skip")
    for column in ("input_tokens", "output_tokens"):
        histogram = raw_histogram(R1, 35, 21_600, column)
        check(fits(trace[column], histogram), f"{column} of client 35")
        wrong = {v + 1: p for v, p in histogram.items()}
        assert not set(trace[column].tolist()) <= set(wrong) or not passes(fits(trace[column], wrong))
    share = trace["reason_tokens"] / trace["output_tokens"]
    ratio = raw_histogram(R1, 35, 21_600, "reason_ratio")
    mean = sum(float(v) * p for v, p in ratio.items())
    deviation = np.sqrt(sum(float(v) ** 2 * p for v, p in ratio.items()) - mean**2)
    long = trace["output_tokens"] > 200
    assert abs(share[long].mean() - mean) < 5 * deviation / np.sqrt(long.sum()) + 1e-4
    assert (trace["reason_tokens"] < trace["output_tokens"]).mean() > 0.999


def test_fields_inside_a_cell_of_r1(r1: ClientPool) -> None:
    cell: dict[str, Any] = {"start": "10h", "duration": 600, "rate": 100}
    for client in (35, 30, 66):
        pool = r1.select([client])
        trace = sg.generate(pool, **cell)
        rank = stats.spearmanr(trace["input_tokens"], trace["output_tokens"])
        assert abs(rank.statistic) < 5 / np.sqrt(len(trace))
        check(float(rank.pvalue), f"input and output of client {client}")
        trace = sg.generate(pool, dependence="comonotone", **cell)
        assert stats.spearmanr(trace["input_tokens"], trace["output_tokens"]).statistic > 0.99
        matrix = np.array([[1, 0.5, 0.2], [0.5, 1, -0.3], [0.2, -0.3, 1]])
        trace = sg.generate(pool, dependence="copula", rank_correlation=matrix, **cell)
        assert 0.46 < stats.spearmanr(trace["input_tokens"], trace["output_tokens"]).statistic < 0.51


def test_mm_image_is_what_its_files_say(mm: ClientPool) -> None:
    trace = sg.generate(mm.select([12]), duration="6h", rate=5)
    images = trace["image_tokens"]
    assert len(trace) > 50_000
    check(fits(trace["text_tokens"], raw_histogram(MM, 12, 0, "text_tokens")), "text")
    check(fits(trace["output_tokens"], raw_histogram(MM, 12, 0, "output_tokens")), "output")
    check(fits(images.lengths, raw_histogram(MM, 12, 0, "image_count")), "number of images")
    check(fits(images.values, raw_histogram(MM, 12, 0, "image_tokens")), "tokens of images")
    assert not len(trace["audio_tokens"].values)
    assert not len(trace["video_tokens"].values)
    sums = np.bincount(np.repeat(np.arange(len(trace)), images.lengths), images.values, len(trace))
    assert np.array_equal(trace["input_tokens"], trace["text_tokens"] + sums.astype(int))


def test_a_day_of_mm_image(mm: ClientPool) -> None:
    trace = sg.generate(mm, duration="24h")
    assert len(trace) == pytest.approx(818_600, abs=1000)
    assert trace["image_tokens"].values.max() <= 1280
    assert trace["image_tokens"].lengths.max() <= 49
    assert len(trace["audio_tokens"].values) == len(trace["video_tokens"].values) == 0
    ties = (np.diff(trace["arrival_us"]) == 0).mean()
    assert 0.05 < ties < 0.2  # small shapes: about 11 % at its own rate


# -- rates from ten minutes to ten minutes -----------------------------------------------------------------------------


def total_over_parts(rate_rps: np.ndarray) -> float:
    """Variance of second differences of the total rate, over the sum of those of all clients: 1 if they are apart."""
    return float(np.diff(rate_rps.sum(axis=0), 2).var() / np.diff(rate_rps, 2, axis=1).var(axis=1).sum())


@pytest.mark.parametrize("workload", ["r1", "mm"])
def test_rates_of_clients_change_apart_from_each_other(workload, request):
    """So no preset has an environment of all clients. Found: 1.0 and 1.1, with an error of about 0.15."""
    pool = request.getfixturevalue(workload)
    rate_rps = pool.rate_factor[:, None] * pool.rate_rps[pool.profile]
    assert total_over_parts(rate_rps) == pytest.approx(1.0, abs=0.4)
    shared = np.exp(0.14 * np.random.default_rng(0).standard_normal(rate_rps.shape[1]))  # as restless as deepseek-r1
    calm = np.broadcast_to(rate_rps.mean(axis=1, keepdims=True), rate_rps.shape)
    assert total_over_parts(calm * shared) > 5
