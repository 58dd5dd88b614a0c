"""The law of environments: the process z, its margins, how they are stated, and what is refused.

The oracle is one cell after the other in plain Python, with SciPy's normals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gates import check, passes
from hypothesis import given
from hypothesis import strategies as st
from profiles import tiny_pool
from scipy import stats

import servegen_gpu as sg
from servegen_gpu.cli import main
from servegen_gpu.fitting.octaves import kernels
from servegen_gpu.law import environment as law
from servegen_gpu.law.address import Purpose, derive_key, draw

KEY = derive_key(20)
OCTAVES = {0: 0.2, 3: 0.3, 7: 0.5}


def one_cell(key: tuple[int, int], whose: int, number: int, octaves: Mapping[int, float], s: int) -> float:
    """z(s), as the law's page has it."""
    z = 0.0
    for k, weight in octaves.items():
        tau = 2**k
        at = {"client": number, "window": k, "stream": whose}
        phase = int(draw(np, key, Purpose.ENVIRONMENT, ordinal=0, turn=1, **at)[0]) % tau
        j, inside = divmod(s + phase, tau)
        f = (inside + 0.5) / tau
        weights = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
        total = squares = 0.0
        for m, b in enumerate(weights):
            words = draw(np, key, Purpose.ENVIRONMENT, ordinal=(j + m) // 4 % 2**32, **at)
            epsilon = stats.norm.ppf((int(words[(j + m) % 4]) + 0.5) / 2**32)
            total += b / 6 * epsilon
            squares += (b / 6) ** 2
        z += weight**0.5 * total / squares**0.5
    return z


def factor(margin: sg.Margin, z: float) -> float:
    u = stats.norm.cdf(z)
    return 0.0 if u < margin.zero else float(np.interp(u, margin.at, margin.values))


@pytest.mark.parametrize("first", [0, -40, 2**31 + 5, -(2**36) - 3])
@pytest.mark.parametrize(("whose", "number"), [(law.BY_NUMBER, 0), (law.BY_GROUP, 3), (law.BY_CLIENT, 2**32 - 1)])
def test_cells_are_those_of_the_oracle(whose: int, number: int, first: int) -> None:
    z = law.process(KEY, whose, number, OCTAVES, first, 60)
    expected = [one_cell(KEY, whose, number, OCTAVES, s) for s in range(first, first + 60)]
    assert z == pytest.approx(expected, abs=1e-9)
    for margin in (sg.Margin.gamma(0.7, zero=0.2), sg.Margin.lognormal(2.0), sg.Margin.of_levels([0, 1, 5], [2, 3, 1])):
        found = law.factors(z, margin.at, margin.values, margin.zero)
        assert found == pytest.approx([factor(margin, x) for x in expected], rel=1e-7, abs=1e-9)


def test_a_process_of_anybody_else_is_another() -> None:
    others = [
        law.process(KEY, whose, number, OCTAVES, 0, 500)
        for whose in (law.BY_NUMBER, law.BY_GROUP, law.BY_CLIENT)
        for number in (0, 1)
    ]
    others.append(law.process(derive_key(20, 1), law.BY_NUMBER, 0, OCTAVES, 0, 500))
    assert np.unique(np.stack(others)[:, ::50].round(6)).size == len(others) * 10


@given(
    first=st.integers(-(2**40), 2**40),
    before=st.integers(0, 700),
    cells=st.integers(0, 300),
    after=st.integers(0, 50),
    octaves=st.dictionaries(st.integers(0, law.MAX_OCTAVE), st.floats(0.1, 1), min_size=1, max_size=4),
)
def test_slices_have_the_same_bits(first: int, before: int, cells: int, after: int, octaves: dict[int, float]) -> None:
    whole = law.process(KEY, law.BY_NUMBER, 4, octaves, first - before, before + cells + after)
    part = law.process(KEY, law.BY_NUMBER, 4, octaves, first, cells)
    assert np.array_equal(part, whole[before : before + cells])


def in_replicas(replicas: int = 2000) -> np.ndarray:
    return np.array([law.process(derive_key(5, r), law.BY_NUMBER, 0, OCTAVES, 77, 1)[0] for r in range(replicas)])


def in_time(cells: int = 4000) -> np.ndarray:
    """Cells far enough apart to be independent, at all phases of the lattices."""
    apart = 8 * 2 ** max(OCTAVES) + 1
    return law.process(KEY, law.BY_NUMBER, 0, OCTAVES, -5, cells * apart)[::apart]


def normal_p(z: np.ndarray) -> float:
    return float(stats.kstest(z, "norm").pvalue)


def test_the_process_is_standard_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    check(normal_p(in_replicas()), "z over replicas")
    check(normal_p(in_time()), "z in time")
    true = law._spline

    def plain(f: np.ndarray, normals: np.ndarray, at: np.ndarray) -> np.ndarray:
        ones = np.stack([true(f, np.eye(4)[m], np.zeros(len(f), np.int64)) for m in range(4)])
        return true(f, normals, at) / ones.sum(axis=0)

    monkeypatch.setattr(law, "_spline", plain)
    assert not passes(normal_p(in_replicas()))
    assert not passes(normal_p(in_time()))


@pytest.mark.parametrize("octave", [0, 2, 5])
def test_autocorrelations_are_those_of_the_kernel(octave: int) -> None:
    step, pairs = 2**octave, 8192
    apart = 8 * step + 1  # pairs share no normals, and have all phases
    z = law.process(KEY, law.BY_NUMBER, 1, {octave: 1.0}, 0, pairs * apart + 4 * step)
    lags = np.array([step, 2 * step, 3 * step])
    expected = kernels(lags, (octave,))[:, 0]
    for lag, rho in zip(lags.tolist(), expected.tolist(), strict=True):
        products = z[: pairs * apart : apart] * z[lag:][: pairs * apart : apart]
        error = np.sqrt((1 + rho * rho) / pairs)
        check(float(2 * stats.norm.sf(abs(products.mean() - rho) / error)), f"octave {octave}, lag {lag}")
        assert not passes(float(2 * stats.norm.sf(abs(products.mean() - rho - 0.12) / error)))  # what it can see
    assert expected[0] > 0.4


MARGINS = {
    "gamma": (sg.Margin.gamma(0.4), 0.4),
    "wild gamma": (sg.Margin.gamma(9.0), 9.0),
    "gamma with empty cells": (sg.Margin.gamma(2.0, zero=0.3), 2.0),
    "lognormal": (sg.Margin.lognormal(1.5), 1.5),
    "lognormal with empty cells": (sg.Margin.lognormal(1.5, zero=0.25), 1.5),
    "knots": (sg.Margin([0, 0.5, 1], [0, 1, 2]), 1 / 3),
    "knots inside": (sg.Margin([0.25, 0.75], [1, 3]), None),
    "one knot": (sg.Margin([0.5], [7.0]), 0.0),
    "levels": (sg.Margin.of_levels([0, 1, 5], [2, 3, 1]), None),
    "all in a jump": (sg.Margin([0, 0.5, 0.5, 1], [1, 1, 3, 3]), 0.25),
}


@pytest.mark.parametrize("name", MARGINS)
def test_moments_of_margins(name: str) -> None:
    margin, variance = MARGINS[name]
    assert f"variance {margin.variance:.4g}" in repr(margin)
    assert margin.quantile([margin.zero / 2])[0] == (0 if margin.zero else margin.values[0])
    above = margin.at[margin.at > margin.zero]
    share = np.concatenate(([margin.zero], above, [1.0]))
    low, high = np.interp(margin.zero, margin.at, margin.values), margin.values[-1]
    values = np.concatenate(([low], margin.values[margin.at > margin.zero], [high]))
    assert float(np.trapezoid(values, share)) == pytest.approx(1, abs=1e-12)
    u = (np.arange(2_000_000) + 0.5) / 2_000_000
    assert margin.quantile(u).mean() == pytest.approx(1, abs=2e-4)
    assert margin.quantile(u).var() == pytest.approx(margin.variance, rel=0.02, abs=1e-9)
    if variance is not None:
        assert margin.variance == pytest.approx(variance, rel=3e-3, abs=1e-12)
    assert (margin.quantile(u) == 0).mean() >= margin.zero - 1e-6


@pytest.mark.parametrize(
    ("make", "family"), [(sg.Margin.gamma, stats.gamma(2.5, scale=0.4)), (sg.Margin.lognormal, None)]
)
def test_quantiles_of_families(make: Any, family: Any) -> None:
    sigma = np.sqrt(np.log1p(0.4))
    family = family or stats.lognorm(sigma, scale=np.exp(-sigma * sigma / 2))
    u = np.array([1e-6, 0.001, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6])
    assert make(0.4).quantile(u) == pytest.approx(family.ppf(u), rel=3e-3)
    zero = 0.25  # the rest has a mean of 4/3 and what is left of the variance
    inside = make(0.4 * 0.75 - 0.25)
    assert make(0.4, zero=zero).quantile(zero + 0.75 * u) == pytest.approx(inside.quantile(u) / 0.75, rel=1e-9)


REFUSED: dict[str, Any] = {
    "at falls": lambda: sg.Margin([0, 0.7, 0.5], [0, 1, 2]),
    "values fall": lambda: sg.Margin([0, 0.5, 1], [0, 2, 1]),
    "values below 0": lambda: sg.Margin([0, 1], [-1, 2]),
    "lengths": lambda: sg.Margin([0, 1], [1, 2, 3]),
    "shares above 1": lambda: sg.Margin([0, 2], [1, 2]),
    "nothing but 0": lambda: sg.Margin([0, 1], [0, 0]),
    "all cells empty": lambda: sg.Margin([0, 1], [1, 1], zero=1.0),
    "variance of the empty cells alone": lambda: sg.Margin.gamma(0.3, zero=0.5),
    "no variance": lambda: sg.Margin.lognormal(0),
    "a variance of infinity": lambda: sg.Margin.gamma(float("inf")),
    "levels and weights": lambda: sg.Margin.of_levels([1, 2], [1]),
    "octave 25": lambda: sg.Environment(sg.Margin.gamma(1), {25: 1}),
    "octave True": lambda: sg.Environment(sg.Margin.gamma(1), {True: 1}),
    "no octaves": lambda: sg.Environment(sg.Margin.gamma(1), {}),
    "octaves without weight": lambda: sg.Environment(sg.Margin.gamma(1), {3: 0}),
    "a weight below 0": lambda: sg.Environment(sg.Margin.gamma(1), {3: 1, 4: -1}),
    "a margin": lambda: sg.Environment(0.4, {3: 1}),  # type: ignore[arg-type]
    "parts of a millisecond": lambda: sg.Environment(sg.Margin.gamma(1), {3: 1}, cell_s=0.0015),
    "who": lambda: sg.Environment(sg.Margin.gamma(1), {3: 1}, each="user"),  # type: ignore[arg-type]
    "common": lambda: sg.Environment(sg.Margin.gamma(1), {3: 1}, common=1.5),
    "number": lambda: sg.Environment(sg.Margin.gamma(1), {3: 1}, number=2**31),
    "cells that do not divide windows": lambda: POOL.with_environment(sg.Environment(sg.Margin.gamma(1), {3: 1}, 7)),
    "cells of a window and a half": lambda: POOL.with_environment(sg.Environment(sg.Margin.gamma(1), {3: 1}, 900)),
    "nothing to read": lambda: POOL.with_environment(5),  # type: ignore[arg-type]
    "a workload without": lambda: POOL.with_environment("nowhere"),
    "a client that is not there": lambda: POOL.with_environment(sg.Environment(sg.Margin.gamma(1), {3: 1}), [99]),
}
POOL = tiny_pool("language", 3)


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_can_have_is_refused(name: str) -> None:
    with pytest.raises(sg.OptionError) as caught:
        REFUSED[name]()
    assert str(caught.value).count("\n") == 0


CLIENTS = """
[[client]]
rate = 2.0
input_tokens = { kind = "exponential", mean = 100 }
output_tokens = { kind = "exponential", mean = 100 }
"""
STATED = """
[environment]
margin = { kind = "gamma", variance = 0.4, zero = 0.1 }
octaves = { 2 = 0.3, 6 = 0.4, 9 = 0.3 }
cell_s = 2
each = "client"
common = 0.5
number = 3
"""


def same_environment(a: sg.Environment, b: sg.Environment) -> bool:
    return a.digest() == b.digest() and a.describe() == b.describe()


def test_files_state_what_python_does(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(CLIENTS + STATED)
    expected = sg.Environment(sg.Margin.gamma(0.4, zero=0.1), {2: 0.3, 6: 0.4, 9: 0.3}, 2, "client", 0.5, 3)
    assert same_environment(sg.read_clients(path).environments[0], expected)
    assert same_environment(POOL.with_environment(path).environments[0], expected)
    assert same_environment(POOL.with_environment(str(path)).environments[0], expected)
    path.write_text('[environment]\nmargin = {kind = "lognormal", variance = 2}\noctaves = {0 = 1}\n')
    assert same_environment(
        POOL.with_environment(path).environments[0], sg.Environment(sg.Margin.lognormal(2), {0: 1.0})
    )
    margin = 'margin = {kind = "quantiles", zero = 0.25, at = [0, 0.5, 1], values = [0, 1, 4]}'
    path.write_text(f"[environment]\n{margin}\noctaves = {{0 = 1}}\n")
    knots = sg.Margin([0, 0.5, 1], [0, 1, 4], 0.25)
    assert same_environment(POOL.with_environment(path).environments[0], sg.Environment(knots, {0: 1}))


def test_populations_have_environments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "show", "m-small"]) == 0
    path = tmp_path / "mine.toml"
    path.write_text(capsys.readouterr().out + STATED)
    pool = sg.population(path, clients=5)
    assert same_environment(pool.environments[0], POOL.with_environment(path).environments[0])
    assert (pool.environment == 0).all()
    path.write_text(path.read_text().replace("cell_s = 2", "cell_s = 7"))
    with pytest.raises(sg.ServeGenError, match=r"mine\.toml, line \d+, environment"):
        sg.population(path, clients=5)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"gamma"', '"normal"', "environment, margin"),
        ("variance = 0.4", 'variance = "0.4"', "environment, margin, variance"),
        ("variance = 0.4", "variance = -1", "environment, margin"),
        ("variance = 0.4", "at = [0, 1]", "environment, margin"),
        ("variance = 0.4, zero = 0.1", "variance = 0.4, zero = 0.5", "environment, margin"),
        ("{ 2 = 0.3", "{ two = 0.3", "environment, octaves, two"),
        ("{ 2 = 0.3", "{ 25 = 0.3", "environment, octaves, 25"),
        ("{ 2 = 0.3", '{ 2 = "x"', "environment, octaves, 2"),
        ("{ 2 = 0.3, 6 = 0.4, 9 = 0.3 }", "[2, 6]", "environment, octaves"),
        ("cell_s = 2", "cell_s = 7", "environment"),
        ("cell_s = 2", "cell_s = [2]", "environment, cell_s"),
        ('each = "client"', "each = 3", "environment, each"),
        ('each = "client"', 'each = "user"', "environment"),
        ("common = 0.5", "common = 2", "environment"),
        ("number = 3", "number = -3", "environment, number"),
        ("number = 3", "seed = 3", "environment"),
        ("octaves = {", "octave = {", "environment"),
    ],
)
def test_bad_values_are_said_with_file_line_and_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    path = tmp_path / "own.toml"
    text = CLIENTS + STATED
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(sg.ServeGenError) as caught:
        sg.read_clients(path)
    message = str(caught.value)
    assert str(path) in message
    assert key in message
    assert "line " in message


def test_a_file_without_the_section_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(CLIENTS)
    with pytest.raises(sg.ServeGenError, match=r"\[environment\]"):
        POOL.with_environment(path)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, trace = tmp_path / "own.toml", tmp_path / "trace.parquet"
    path.write_text(CLIENTS + STATED)
    asked = ["inspect", "deepseek-r1", "--clients", "20", "--json"]
    assert main([*asked, "--environment", str(path)]) == 0
    (found,) = json.loads(capsys.readouterr().out)["environments"]
    assert found == {
        "clients": 20,
        "each": "client",
        "common": 0.5,
        "number": 3,
        "variance": pytest.approx(0.4, rel=3e-3),
        "empty_cells": 0.1,
        "cell_s": 2.0,
        "octaves_s": pytest.approx({"8": 0.3, "128": 0.4, "1024": 0.3}),
    }
    assert main(["inspect", str(path), "--environment", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["environments"] == []
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "variance 0.4, 10.0% of the cells of 2 s empty; moves 1 clients each alone, 50% in common" in text
    assert "8 s 30% · 128 s 40% · 1024 s 30%" in text

    asked = ["generate", "m-small", "--clients", "5", "--duration", "10m", "--quiet", "-o", str(trace)]
    assert main([*asked, "--environment", str(path)]) == 0
    pool = sg.population("m-small", clients=5).with_environment(path)
    made = sg.read_trace(trace)
    assert np.array_equal(made["arrival_us"], sg.generate(pool, duration="10m")["arrival_us"])
    assert not np.array_equal(
        made["arrival_us"], sg.generate(pool.with_environment(None), duration="10m")["arrival_us"]
    )
    (said,) = made.provenance["environments"]
    assert said["octaves"] == pytest.approx({"2": 0.3, "6": 0.4, "9": 0.3})
    assert main([*asked, "--environment", "none"]) == 0
    assert "environments" not in sg.read_trace(trace).provenance


def test_a_number_of_requests_is_there_whatever_the_environment() -> None:
    for margin, octaves in ((sg.Margin.gamma(9, zero=0.85), {0: 0.2, 9: 0.8}), (sg.Margin.lognormal(9), {8: 1})):
        pool = tiny_pool("language", 3, rate_rps=2.0, silent=False).with_environment(sg.Environment(margin, octaves))
        spans = [
            len(sg.generate(pool, requests=requests, seed=seed, counts=counts, max_output=500, over=over))
            for seed in range(4)
            for requests in (1, 40, 3000)
            for counts in ("exact", "renewal")
            for over in ("cap", "drop")
        ]
        assert spans == [n for _ in range(4) for n in (1, 40, 3000) for _ in range(4)]
