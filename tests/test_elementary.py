"""Elementary functions: errors against 40 digits or SciPy, and known answers bit for bit."""

from decimal import Context, Decimal
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from servegen_gpu.law.elementary import EXP_MAX, EXP_MIN, exp, log, normal_cdf, normal_quantile

KAT = Path(__file__).parent / "data" / "elementary_kat.txt"
FUNCTIONS = {"log": log, "exp": exp, "normal_quantile": normal_quantile, "normal_cdf": normal_cdf}
DIGITS = Context(prec=40, Emin=-99_999, Emax=99_999)
TINY = 2.0**-1022  # the smallest normal number
RNG = np.random.default_rng(20)

LOG_RANGES = {
    "all normal numbers": RNG.integers(1 << 52, 0x7FF << 52, 4_000).view(np.float64),
    "uniforms": RNG.random(4_000),
    "around 1": RNG.uniform(0.7, 1.42, 8_000),
    "next to 1": np.concatenate([1 + np.arange(1, 400) * 2.0**-52, 1 - np.arange(1, 400) * 2.0**-53]),
    "where the exponent steps": np.sqrt(0.5) * 2.0 ** RNG.integers(-3, 4, 2_000) * RNG.uniform(0.999, 1.001, 2_000),
    "smallest and largest": np.array([TINY, TINY * (1 + 2.0**-52), 1e-300, 1e300, np.finfo(np.float64).max]),
    "worst of 100 million": np.array([float.fromhex("0x1.01006786b1be1p+0"), float.fromhex("0x1.008016bd696b7p+0")]),
    "powers of two": 2.0 ** np.delete(np.arange(-1022, 1024), 1022),
}
EXP_RANGES = {
    "all": RNG.uniform(EXP_MIN, EXP_MAX, 6_000),
    "gaps": -RNG.exponential(5, 3_000),
    "around 0": RNG.uniform(-1, 1, 6_000),
    "next to 0": RNG.uniform(-1, 1, 2_000) * 2.0 ** -RNG.integers(1, 80, 2_000),
    "where the exponent steps": (RNG.integers(-1020, 1020, 2_000) + 0.5) * np.log(2) + RNG.uniform(-1e-9, 1e-9, 2_000),
    "worst of 50 million": np.array([float.fromhex("0x1.a0f0f422e3ef4p+8"), float.fromhex("-0x1.0fe0971caa7a0p+9")]),
    "ends": np.array([EXP_MIN, EXP_MAX, np.nextafter(EXP_MIN, 0), np.nextafter(EXP_MAX, 0)]),
}
ENDS = np.arange(5_000, dtype=np.int64)
WORDS = np.concatenate(
    [ENDS, 2**31 - 2_500 + ENDS, 2**32 - 1 - ENDS, RNG.integers(0, 2**32, 50_000)]
    + [np.rint(share * 2**32).astype(np.int64) - 2_500 + ENDS for share in (0.075, 0.925)]
)
"""Words at both ends, around the middle, where the quantile changes its formula, and anywhere."""


def ulps(values, exact):
    """Largest distance from exact decimals, in units of the last place."""
    pairs = zip(values.tolist(), np.spacing(np.abs(values)).tolist(), exact, strict=True)
    return max(float(abs(Decimal(value) - true) / Decimal(ulp)) for value, ulp, true in pairs)


def known_answers():
    lines = [line.split() for line in KAT.read_text().splitlines() if not line.startswith("#")]
    return [
        (name, [(float.fromhex(x), float.fromhex(y)) for n, x, y in lines if n == name])
        for name in dict.fromkeys(line[0] for line in lines)
    ]


@pytest.mark.parametrize("name", list(LOG_RANGES))
def test_log_within_2_ulp(name):
    x = LOG_RANGES[name]
    assert ulps(log(np, x), [Decimal(v).ln(DIGITS) for v in x.tolist()]) < 2


@pytest.mark.parametrize("name", list(EXP_RANGES))
def test_exp_within_1_1_ulp(name):
    x = EXP_RANGES[name]
    assert ulps(exp(np, x), [Decimal(v).exp(DIGITS) for v in x.tolist()]) < 1.1


def test_exact_where_it_must_be():
    assert log(np, np.array([1.0])).tolist() == [0.0]
    assert exp(np, np.array([0.0, -0.0])).tolist() == [1.0, 1.0]
    assert normal_cdf(np, np.array([0.0, -0.0])).tolist() == [0.5, 0.5]
    assert normal_quantile(np, np.array([0.5])).tolist() == [0.0]


def test_exp_clips_and_stays_normal():
    low, high = exp(np, np.array([-1e308, -709.0, EXP_MIN])), exp(np, np.array([1e308, 709.5, EXP_MAX]))
    assert (low == low[-1]).all()
    assert (high == high[-1]).all()
    assert low[0] >= TINY
    assert np.isfinite(high[0])


def test_log_and_exp_do_not_step_back():
    x = np.sort(np.concatenate([np.exp(np.linspace(-700, 700, 100_001)), np.linspace(0.5, 2, 100_001)]))
    assert (np.diff(log(np, x)) >= 0).all()
    assert (np.diff(exp(np, np.linspace(-708, 709, 300_001))) >= 0).all()


@pytest.mark.parametrize("at", [2.0**-1, 2.0**-0.5, 1.0, 2.0**0.5, 2.0])
def test_log_steps_back_at_most_an_ulp_between_neighbours(at):
    x = (np.array([at]).view(np.int64) + np.arange(-2_000, 2_000)).view(np.float64)
    steps = np.diff(log(np, x))
    assert (steps >= -np.spacing(np.abs(log(np, x[1:])))).all()


def test_quantile_within_1e_15():
    u = (WORDS + 0.5) * 2.0**-32
    exact = ndtri(u)
    z = normal_quantile(np, u)
    assert (np.abs(z - exact) <= 1.6e-15 * np.abs(exact)).all()  # SciPy's own error is 6e-16 of it


def test_quantile_of_first_and_last_word():
    z = normal_quantile(np, (np.array([0, 2**32 - 1]) + 0.5) * 2.0**-32)
    assert z[0] == -z[1]
    assert z[1] == pytest.approx(6.337957754553790, rel=1e-15)  # 1 - 2**-33 of the mass


def test_quantile_ascends_with_the_word():
    words = np.unique(np.concatenate([WORDS, np.arange(0, 2**32, 2**14)]))
    z = normal_quantile(np, (words + 0.5) * 2.0**-32)
    assert (np.diff(z) >= 0).all()


def test_cdf_within_3e_16_absolute():
    z = np.linspace(-7, 7, 100_001)
    assert np.abs(normal_cdf(np, z) - ndtr(z)).max() <= 5e-16  # SciPy's own error is 2e-16 of it


def test_cdf_relative_error_in_the_lower_tail():
    z = np.linspace(-7, 0, 50_001)
    relative = np.abs(normal_cdf(np, z) / ndtr(z) - 1)
    assert relative[z >= -5].max() < 1e-10
    assert relative.max() < 3e-9


def test_cdf_is_monotone_and_clips():
    p = normal_cdf(np, np.concatenate([[-np.inf, -1e300, -8], np.linspace(-7, 7, 200_001), [8, 1e300, np.inf]]))
    assert (np.diff(p) >= 0).all()
    assert p[0] == p[3] > 0
    assert p[-1] == p[-4] < 1


def test_words_survive_the_way_to_normals_and_back():
    back = normal_cdf(np, normal_quantile(np, (WORDS + 0.5) * 2.0**-32)) * 2.0**32
    np.testing.assert_array_equal(back.astype(np.int64), WORDS)


def test_known_answers_cover_every_function():
    assert [name for name, _ in known_answers()] == list(FUNCTIONS)
    assert all(len(pairs) >= 12 for _, pairs in known_answers())


@pytest.mark.parametrize(("name", "pairs"), known_answers())
def test_known_answers(name, pairs):
    x, y = np.array(pairs).T
    np.testing.assert_array_equal(FUNCTIONS[name](np, x.copy()).view(np.int64), y.copy().view(np.int64))
    # blocks go through vector instructions, single values need not
    for one, expected in zip(x, y, strict=True):
        assert FUNCTIONS[name](np, np.array([one]))[0] == expected
