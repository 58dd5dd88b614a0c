"""Tables of stated distributions against SciPy's distribution functions; what cannot be tabulated is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from servegen_gpu.clients.stated.distributions import (
    Beta,
    Constant,
    Distribution,
    Exponential,
    Histogram,
    LogNormal,
    Mixture,
    Normal,
    Pareto,
    Pmf,
    Samples,
    Uniform,
    Zipf,
    as_distribution,
)
from servegen_gpu.clients.stated.tabulate import ITEMS, RATIO, TOKENS, Grid, grid_of, tables_of, tabulate
from servegen_gpu.errors import OptionError
from servegen_gpu.request.tables import WORDS

Law = Callable[[np.ndarray], np.ndarray]

CV = 1.7
CONTINUOUS: dict[str, tuple[Distribution, Any]] = {
    "exponential": (Exponential(400), stats.expon(scale=400)),
    "exponential of long means": (Exponential(30_000, max=120_000), stats.expon(scale=30_000)),
    "normal": (Normal(1000, 250), stats.norm(1000, 250)),
    "normal and narrow": (Normal(200_000, 20), stats.norm(200_000, 20)),
    "lognormal": (LogNormal(median=300, sigma=1.1), stats.lognorm(1.1, scale=300)),
    "lognormal by mean": (LogNormal(mean=800, sigma=0.5), stats.lognorm(0.5, scale=800 * np.exp(-0.125))),
    "lognormal by cv": (
        LogNormal(mean=800, cv=CV),
        stats.lognorm(np.sqrt(np.log1p(CV**2)), scale=800 / np.sqrt(1 + CV**2)),
    ),
    "lognormal, cut": (LogNormal(median=300, sigma=1.5, min=20, max=4096), stats.lognorm(1.5, scale=300)),
    "pareto": (Pareto(1.5, 200), stats.pareto(1.5, scale=200)),
    "pareto with a heavy tail": (Pareto(0.7, 10, max=32_768), stats.pareto(0.7, scale=10)),
    "scipy's gamma": (as_distribution(stats.gamma(2, scale=300)), stats.gamma(2, scale=300)),
    "scipy's weibull": (as_distribution(stats.weibull_min(0.6, scale=900)), stats.weibull_min(0.6, scale=900)),
    "scipy's poisson": (as_distribution(stats.poisson(20)), stats.poisson(20)),
}


class Mixed:
    """Distribution function of a mixture."""

    def __init__(self, weights: list[float], laws: list[Any]) -> None:
        self.weights, self.laws = weights, laws

    def cdf(self, x: np.ndarray) -> np.ndarray:
        return sum(w * law.cdf(x) for w, law in zip(self.weights, self.laws, strict=True))


CONTINUOUS["pareto and lognormal"] = (
    Mixture([LogNormal(300, 1.1), Pareto(1.5, 2000)], [9, 1], max=32_768),
    Mixed([0.9, 0.1], [stats.lognorm(1.1, scale=300), stats.pareto(1.5, scale=2000)]),
)


def off_by(distribution: Distribution, cdf: Law, grid: Grid = TOKENS) -> float:
    """Largest distance from a distribution function at the ends of bins, in words; the last end is the bound."""
    table = tabulate(distribution, grid)
    exact = cdf((table.last[:-1] + 0.5) / grid.unit) * WORDS
    return float(np.abs(np.cumsum(table.words)[:-1] - exact).max(initial=0))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_tables_follow_scipy_to_the_word(name):
    """Half a word is rounding, and 8 more what SciPy's own functions are rounded by."""
    distribution, law = CONTINUOUS[name]
    assert off_by(distribution, law.cdf) <= (8.6 if "scipy" in name else 0.6)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_comparison_rejects_what_is_wrong(name):
    distribution, law = CONTINUOUS[name]
    assert off_by(distribution, lambda x: law.cdf(x + 1)) > 100
    if "poisson" not in name:
        assert off_by(distribution, lambda x: law.cdf(1.001 * x)) > 100


@pytest.mark.parametrize("name", CONTINUOUS)
def test_bins_are_narrow_light_and_complete(name):
    distribution, law = CONTINUOUS[name]
    table = tabulate(distribution, TOKENS)
    low, high = distribution.min or 1, distribution.max or 2**20
    assert table.words.sum() == WORDS
    assert (table.words > 0).all()
    assert (np.diff(table.values) > 0).all()
    assert low <= table.values[0] <= table.values[-1] <= high
    width = np.diff(table.last)
    packed = np.diff(table.values) < 3 + table.values[1:] / 256  # beside others, not in an empty stretch
    assert packed[table.words[1:] > 4096].mean() > 0.99
    assert ((table.words <= WORDS >> 10) | (table.values == table.last))[1:].all()
    assert (width[table.last[1:] <= 512] >= 1).all()
    assert (table.values == table.last)[table.last <= 512].all()
    mean = table.values @ table.words / WORDS
    grid = np.arange(low, high)
    assert mean == pytest.approx(low + (1 - law.cdf(grid + 0.5)).sum(), rel=2e-5)


def test_what_is_cut_falls_on_the_bound():
    table = tabulate(Exponential(400, min=100, max=1000), TOKENS)
    assert table.values[[0, -1]].tolist() == [100, 1000]
    assert table.words[0] / WORDS == pytest.approx(-np.expm1(-100.5 / 400), abs=1e-9)
    assert table.words[-1] / WORDS == pytest.approx(np.exp(-999.5 / 400), abs=1e-9)


def exact(distribution: Any, grid: Grid = TOKENS) -> dict[int, float]:
    table = tabulate(as_distribution(distribution), grid)
    assert table.words.sum() == WORDS
    return dict(zip(table.values.tolist(), (table.words / WORDS).tolist(), strict=True))


def close(probabilities: dict[int, float]) -> Any:
    return pytest.approx(probabilities, abs=1e-9)


def test_explicit_values_are_kept():
    assert exact(1234567) == {1234567: 1}
    assert exact(0) == {0: 1}
    assert exact({256: 3, 1280: 1}) == {256: 0.75, 1280: 0.25}
    assert exact(Pmf([9, 5, 9, 7], [1, 1, 1, 0])) == close({5: 1 / 3, 9: 2 / 3})
    assert exact([700, 3, 700, 99_999]) == {3: 0.25, 700: 0.5, 99_999: 0.25}
    assert exact(np.array([0, 0, 1], np.int8), ITEMS) == close({0: 2 / 3, 1: 1 / 3})
    assert exact(Uniform(0, 3)) == {0: 0.25, 1: 0.25, 2: 0.25, 3: 0.25}
    assert exact(Uniform(7, 7)) == {7: 1}
    assert exact(Histogram([0, 2, 4], [1, 3])) == {0: 0.125, 1: 0.125, 2: 0.375, 3: 0.375}
    assert exact(Mixture([Constant(100_001), Uniform(1, 2)], [1, 1])) == {1: 0.25, 2: 0.25, 100_001: 0.5}
    assert exact(Mixture([{0: 1}, Exponential(5, min=3, max=4)], [1, 0])) == {0: 1}
    assert exact(Samples([5, 50], max=20)) == {5: 0.5, 20: 0.5}


def test_zipf_is_exact_one_by_one_and_in_bins():
    for exponent, size in ((1.1, 500), (0.0, 300), (2.5, 100)):
        due = np.arange(1, size + 1.0) ** -exponent
        found = exact(Zipf(exponent, max=size))
        assert found == close(dict(enumerate((due / due.sum()).tolist(), 1)))
    table = tabulate(Zipf(1.05, min=10, max=1_000_000), TOKENS)
    running = np.cumsum(np.arange(10, 1_000_001.0) ** -1.05)
    assert np.abs(np.cumsum(table.words) / WORDS - running[table.last - 10] / running[-1]).max() < 1e-9


def test_shares_are_rounded_to_501_steps():
    assert exact(0.5, RATIO) == {250: 1}
    assert exact(1, RATIO) == {500: 1}
    assert exact({0.0: 1, 0.8: 1}, RATIO) == {0: 0.5, 401: 0.5}
    assert off_by(Beta(2, 3), stats.beta(2, 3).cdf, RATIO) <= 8.6
    assert off_by(Beta(0.3, 0.2), stats.beta(0.3, 0.2).cdf, RATIO) <= 8.6
    assert off_by(Uniform(0.2, 0.9), stats.uniform(0.2, 0.7).cdf, RATIO) <= 0.6
    assert off_by(Histogram([0, 0.5, 1], [1, 3]), lambda x: np.interp(x, [0, 0.5, 1], [0, 0.25, 1]), RATIO) <= 0.6
    assert off_by(Beta(2, 3), stats.beta(3, 2).cdf, RATIO) > 1e6
    bimodal = Mixture([Beta(17, 28), Beta(4.6, 1.25)], [0.3, 0.7])
    law = Mixed([0.3, 0.7], [stats.beta(17, 28), stats.beta(4.6, 1.25)])
    assert off_by(bimodal, law.cdf, RATIO) <= 8.6


@pytest.mark.parametrize("large", [1, 40, 1000, 2e5])
def test_beta_follows_scipy(large):
    shares = np.arange(RATIO.unit)
    for a, b in [(large, large), (1e-6, large), (large, 1e-3), (0.3, large), (large, 1.6 * large)]:
        found = Beta(a, b).at_most(shares, RATIO.unit)
        exact = stats.beta(a, b).cdf((shares + 0.5) / RATIO.unit)
        assert np.abs(found - exact).max() <= 2.0**-29 + 1e-11  # half a step of the rounding
        assert np.abs(found - stats.beta(b, 2 * a).cdf((shares + 0.5) / RATIO.unit)).max() > 1e-3


def test_grids_of_fields():
    assert grid_of("reason_ratio") is RATIO
    assert grid_of("image_count") is ITEMS
    assert {grid_of(name) for name in ("input_tokens", "output_tokens", "text_tokens", "image_tokens")} == {TOKENS}


def test_packed_tables_have_these_words():
    tables = [tabulate(as_distribution(d), TOKENS) for d in (5, {1: 1, 2: 3}, LogNormal(30, 0.5))]
    packed = tables_of(tables)
    assert len(packed) == 3
    for t, table in enumerate(tables):
        values, chances = packed.table(t)
        assert values.tolist() == table.values.tolist()
        assert (chances * WORDS).tolist() == table.words.tolist()


def test_equal_distributions_share_a_table_and_others_never_do():
    assert tabulate(LogNormal(300, 1.1), TOKENS) is tabulate(LogNormal(300, 1.1), TOKENS)
    different = [
        stats.gamma(2, scale=300),
        stats.norm(500, 20),
        {1: 1},
        {2: 1},
        [1],
        [3],
        LogNormal(3, 1),
        Pareto(3, 1),
    ]
    different += [Exponential(9), Exponential(9, max=50), Exponential(9, min=5)]
    found = {tabulate(as_distribution(d), TOKENS).words.tobytes() + bytes(len(str(d))) for d in different}
    assert len(found) >= len(different) - 3  # constants of one word each look alike
    assert len({id(tabulate(as_distribution(d), TOKENS)) for d in different}) == len(different)


def test_tables_are_the_same_on_every_machine():
    """The families are made of plain arithmetic: a change of these digests changes pools that users describe."""
    stated = {
        "lognormal": LogNormal(300, 1.1),
        "cv": LogNormal(mean=300, cv=2),
        "mixture": CONTINUOUS["pareto and lognormal"][0],
        "exponential": Exponential(400),
        "normal": Normal(1000, 250),
        "zipf": Zipf(1.1, max=100_000),
    }
    found = {}
    for name, distribution in stated.items():
        table = tabulate(distribution, TOKENS)
        found[name] = hashlib.sha256(b"".join(a.astype("<i8").tobytes() for a in table)).hexdigest()[:12]
    assert found == DIGESTS


DIGESTS = {
    "lognormal": "0e231e786abb",
    "cv": "f3b6de4f2332",
    "mixture": "4c7880cb5dd8",
    "exponential": "5ce1d4bb6378",
    "normal": "ddb798861ef2",
    "zipf": "4d9c244eac07",
}


def test_distributions_print_what_was_stated():
    assert repr(LogNormal(300, 1.1, max=9)) == "LogNormal(max=9.0, median=300.0, sigma=1.1)"
    assert repr(Mixture([5, Exponential(3)])) == (
        "Mixture(parts=(Constant(value=5.0), Exponential(mean=3.0)), weights=(1.0, 1.0))"
    )


class Falling:
    def cdf(self, x: np.ndarray) -> np.ndarray:
        return np.clip(1 - x / 1000, 0, 1)


class Broken:
    def cdf(self, x: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("no")


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "negative constant": (lambda: Constant(-1), "-1"),
    "text": (lambda: as_distribution("long"), "long"),
    "nothing": (lambda: as_distribution(None), "None"),
    "a truth value": (lambda: as_distribution(True), "True"),
    "NaN": (lambda: Exponential(float("nan")), "nan"),
    "infinite": (lambda: Exponential(float("inf")), "inf"),
    "zero mean": (lambda: Exponential(0), "mean"),
    "zero sigma": (lambda: LogNormal(300, 0), "sigma"),
    "median and mean": (lambda: LogNormal(median=3, mean=3, sigma=1), "median and mean"),
    "neither sigma nor cv": (lambda: LogNormal(300), "neither"),
    "zero alpha": (lambda: Pareto(0, 5), "alpha"),
    "high below low": (lambda: Uniform(5, 4), "high"),
    "min above max": (lambda: Exponential(5, min=6, max=5), "min 6, max 5"),
    "zipf without a max": (lambda: Zipf(1.1), "state max"),
    "zipf without end": (lambda: Zipf(1.1, max=2**30), "state max"),
    "zipf from zero": (lambda: Zipf(1.1, min=0, max=5), "min 0"),
    "no samples": (lambda: Samples([]), "at least one"),
    "negative samples": (lambda: Samples([1, -2]), r"-2 \(number 2\)"),
    "NaN samples": (lambda: Samples([1, np.nan]), "nan"),
    "samples of text": (lambda: Samples(["a"]), "numbers as samples"),
    "samples in rows": (lambda: Samples([[1, 2]]), "shape"),
    "ragged samples": (lambda: Samples([[1], [1, 2]]), "numbers as samples"),
    "no weight": (lambda: as_distribution({5: 0}), "zeros only"),
    "negative weight": (lambda: as_distribution({5: -1}), "-1"),
    "empty": (lambda: as_distribution({}), "values"),
    "weights missing": (lambda: Pmf([1, 2], [1]), "2 values, 1 weights"),
    "edges descend": (lambda: Histogram([0, 5, 5], [1, 1]), "5 after 5"),
    "edges missing": (lambda: Histogram([0, 5], [1, 1]), "2 edges"),
    "empty histogram": (lambda: Histogram([0, 5], [0]), "zeros only"),
    "mixture of nothing": (lambda: Mixture([]), "at least one"),
    "mixture without weights": (lambda: Mixture([1, 2], [1]), "2 parts"),
    "mixture of zeros": (lambda: Mixture([1, 2], [0, 0]), "not all of them 0"),
    "mixture of text": (lambda: Mixture(["x"]), "x"),
    "fractional tokens": (lambda: exact(1.5), "whole numbers of tokens.*1.5"),
    "fractional samples": (lambda: exact([1, 2.25]), "2.25"),
    "fractional uniform": (lambda: exact(Uniform(1, 2.5)), "2.5"),
    "fractional bound": (lambda: exact(Exponential(5, max=9.5)), "9.5"),
    "fractional edges": (lambda: exact(Histogram([0, 1.5], [1])), "whole numbers of tokens.*1.5"),
    "too large": (lambda: exact(2**31), "2,147,483,647"),
    "too many items": (lambda: exact(270_000, ITEMS), "262,144"),
    "share above one": (lambda: exact(1.01, RATIO), "shares from 0 to 1.*1.01"),
    "bound above one": (lambda: exact(Beta(2, 2, max=2), RATIO), "shares from 0 to 1"),
    "tokens as a share": (lambda: exact(LogNormal(300, 1), RATIO), "state max"),
    "Beta of tokens": (lambda: exact(Beta(2, 3)), "Beta"),
    "Zipf of shares": (lambda: exact(Zipf(1, max=1), RATIO), "Zipf"),
    "below zero": (lambda: exact(Normal(100, 200)), r"30.7\d% below 0.*state min"),
    "past all contexts": (lambda: exact(Pareto(0.5, 1000)), "above 1,048,576.*state max"),
    "NaN from SciPy": (lambda: exact(stats.norm(5, -1)), "rises from 0 to 1"),
    "a falling cdf": (lambda: exact(Falling()), "rises|below 0"),
    "a broken cdf": (lambda: exact(Broken()), "ZeroDivisionError: no"),
}


@pytest.mark.parametrize(("make", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_tabulated_is_refused(make, said):
    with pytest.raises(OptionError, match=said):
        make()


def test_bounds_that_are_stated_may_cut_anything():
    assert exact(Normal(100, 200, min=0, max=0)) == {0: 1}
    assert tabulate(Normal(100, 200, min=1), TOKENS).words[0] / WORDS == pytest.approx(stats.norm.cdf(1.5, 100, 200))
    assert tabulate(Pareto(0.5, 1000, max=10_000), TOKENS).values[-1] == 10_000
