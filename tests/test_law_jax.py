"""The law over jax.numpy, operation by operation: the same bits as over NumPy.

64-bit types are on inside a context only, and all arrays live on the CPU.
"""

from dataclasses import replace

import numpy as np
import pytest
from test_elementary import known_answers as elementary_answers
from test_philox import known_answers as philox_answers
from test_tables import THRESHOLDS, adversarial_words, of_thresholds

from servegen_gpu.law.address import MAX_WINDOW, Purpose, derive_key, draw
from servegen_gpu.law.context import cut_input, cut_output
from servegen_gpu.law.dependence import mix_words, mixing_matrix, ties
from servegen_gpu.law.elementary import exp, log, normal_cdf, normal_quantile
from servegen_gpu.law.normal import normal_of_word, word_of_normal
from servegen_gpu.law.philox import philox4x32
from servegen_gpu.law.position import clock_us, from_start, on_circle, tick_bits
from servegen_gpu.law.tables import find_bin
from servegen_gpu.law.variates import (
    dispersion,
    equilibrium_constants,
    gap_constants,
    gap_ticks,
    try_log_gap,
    uniform32,
    uniform52,
)
from servegen_gpu.request.families import DRAWS, FIRST_DRAWS
from servegen_gpu.request.tables import pack_tables

jax = pytest.importorskip("jax", reason="JAX is not installed")

N = 20_000
RNG = np.random.default_rng(9)
WORDS = tuple(np.concatenate([[0, 2**32 - 1], RNG.integers(0, 2**32, N - 2)]).astype(np.uint64) for _ in range(4))
SHAPES = np.geomspace(0.0067, 4.5e4, N)
FUNCTIONS = {"log": log, "exp": exp, "normal_quantile": normal_quantile, "normal_cdf": normal_cdf}


@pytest.fixture(autouse=True)
def x64():
    """64-bit types for the time of a test."""
    if hasattr(jax, "enable_x64"):
        enable = jax.enable_x64
    else:  # before JAX 0.8
        from jax.experimental import enable_x64 as enable
    with enable(True), jax.default_device(jax.devices("cpu")[0]):
        yield
    assert jax.numpy.zeros(1).dtype == np.float32


def in_jax(value):
    """Arrays of NumPy as arrays of JAX, through tuples and lists; the rest as it is."""
    if isinstance(value, tuple | list):
        return type(value)(in_jax(part) for part in value)
    return jax.numpy.asarray(value) if isinstance(value, np.ndarray) else value


def assert_same(expected, result):
    if isinstance(expected, tuple | list):
        assert len(expected) == len(result)
        for one, other in zip(expected, result, strict=True):
            assert_same(one, other)
        return
    assert isinstance(result, jax.Array)
    result = np.asarray(result)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    if expected.dtype == np.float64:
        expected, result = expected.view(np.int64), result.view(np.int64)
    np.testing.assert_array_equal(result, expected)


def check_both(function, *arguments):
    """Run over NumPy and over JAX, eagerly, and compare bits; the result over NumPy."""
    expected = function(np, *arguments)
    assert_same(expected, function(jax.numpy, *in_jax(arguments)))
    return expected


@pytest.mark.parametrize(("counter", "key", "result"), philox_answers(), ids=["zeros", "ones", "pi"])
def test_philox_known_answers(counter, key, result):
    words = philox4x32(jax.numpy, in_jax(tuple(np.array([word], np.uint64) for word in counter)), key)
    assert [int(word[0]) for word in words] == result


def test_philox():
    check_both(philox4x32, WORDS, (3, 2**32 - 1))
    check_both(philox4x32, (WORDS[0][:50, None], WORDS[1][:7], WORDS[2][:7], WORDS[3][:1]), (0, 0))


def test_draw():
    ordinal, window = np.arange(300)[:, None], np.array([0, 5, MAX_WINDOW - 1])
    expected = draw(np, derive_key(1), Purpose.GAP, ordinal=ordinal, client=7, window=window, stream=3, turn=2, item=9)
    place = {"ordinal": in_jax(ordinal), "client": 7, "window": in_jax(window)}
    assert_same(expected, draw(jax.numpy, derive_key(1), Purpose.GAP, **place, stream=3, turn=2, item=9))


@pytest.mark.parametrize(("name", "pairs"), elementary_answers())
def test_elementary_known_answers(name, pairs):
    x, y = np.array(pairs).T
    assert_same(y.copy(), FUNCTIONS[name](jax.numpy, in_jax(x)))


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (log, RNG.integers(1 << 52, 0x7FF << 52, N).view(np.float64)),
        (log, RNG.uniform(0.7, 1.42, N)),
        (exp, RNG.uniform(-760, 760, N)),
        (exp, RNG.uniform(-1, 1, N)),
        (normal_quantile, (WORDS[0] + 0.5) * 2.0**-32),
        (normal_cdf, RNG.normal(0, 3, N)),
    ],
)
def test_elementary(function, x):
    check_both(function, x)


def test_normals():
    z = check_both(normal_of_word, WORDS[0])
    check_both(word_of_normal, np.concatenate([z, 1.3 * z, [0.0, -0.0, 6.35, 1e300, -1e300]]))


def test_uniforms():
    check_both(uniform32, WORDS[0])
    check_both(uniform52, WORDS[0], WORDS[1])


@pytest.mark.parametrize("family", np.unique(DRAWS))
def test_gaps(family):
    """Gaps and first gaps of a family, and the ticks of both."""
    ordinary, in_order = gap_constants(np, family, SHAPES), gap_constants(jax.numpy, family, in_jax(SHAPES))
    first, power = equilibrium_constants(np, family, SHAPES)
    jax_first, jax_power = equilibrium_constants(jax.numpy, family, in_jax(SHAPES))
    assert_same(power, jax_power)
    check_both(dispersion, family, SHAPES)
    index = RNG.integers(0, N, N)
    assert_same(ordinary.take(index).c, in_order.take(in_jax(index)).c)
    for by, expected, constants in ((family, ordinary, in_order), (FIRST_DRAWS[family], first, jax_first)):
        for name, values in vars(expected).items():
            assert_same(values, getattr(constants, name))
        log_gap, accepted = try_log_gap(np, by, WORDS, expected)
        jax_gap, jax_accepted = try_log_gap(jax.numpy, by, in_jax(WORDS), constants)
        assert_same(log_gap, jax_gap)
        assert (accepted is None) == (jax_accepted is None)
        if accepted is not None:
            assert_same(accepted, jax_accepted)
        assert_same(gap_ticks(np, log_gap, 1.0, 2.0**62), gap_ticks(jax.numpy, in_jax(log_gap), 1.0, 2.0**62))


def test_ticks():
    log_gap = np.concatenate([RNG.normal(0, 20, N), [0.0, -708.0, -1e4, 800.0]])
    bits = RNG.integers(31, 63, len(log_gap))
    for unit in (0.0, 0.3, -5.0):
        check_both(gap_ticks, log_gap, np.full(len(log_gap), unit), 2.0**bits)


def test_tick_bits():
    check_both(tick_bits, np.concatenate([np.arange(1, 5_001), 2**31 - np.arange(3)]))


def test_positions():
    before = np.sort(RNG.integers(0, 2**62, N))
    in_all = np.full(N, before[-1])
    check_both(on_circle, before, in_all, RNG.uniform(1e-6, 1, N), RNG.integers(0, 2**32, N))
    check_both(from_start, before, in_all)


def test_clock():
    first = RNG.integers(0, 2**31, N).astype(np.uint64)
    start, length = RNG.integers(0, 2**31, N).astype(np.uint64), RNG.integers(0, 2**31, N).astype(np.uint64)
    check_both(
        clock_us, first + (WORDS[0] >> np.uint64(1)), first, start, (length << np.uint64(32)) // np.uint64(2**31)
    )


def test_find_bin():
    tables = of_thresholds(*THRESHOLDS.values())
    packed = pack_tables(tables)
    word = np.concatenate([adversarial_words(thresholds)[:4_000] for thresholds in THRESHOLDS.values()])
    table = np.arange(len(word)) % len(tables)
    arrays = {name: in_jax(getattr(packed, name)) for name in ("thresholds", "values", "guide")}
    expected = find_bin(np, word, table, packed)
    assert_same(expected, find_bin(jax.numpy, in_jax(word), in_jax(table), replace(packed, **arrays)))


def test_mix_words():
    mixing = mixing_matrix(
        np.array([[1.0, 0.6, 0.0, -0.3], [0.6, 1.0, 0.0, 0.2], [0.0, 0.0, 1.0, 0.0], [-0.3, 0.2, 0.0, 1.0]])
    )
    expected = mix_words(np, list(WORDS), mixing)
    assert_same(expected, mix_words(jax.numpy, in_jax(list(WORDS)), mixing))


def test_mix_words_of_requests_with_matrices_of_their_own():
    spearman = np.stack([np.eye(4), np.where(np.eye(4), 1.0, 0.3), np.where(np.eye(4), 1.0, -0.1)])
    mixings, of = np.stack([mixing_matrix(matrix) for matrix in spearman]), np.arange(N) % 3
    expected = mix_words(np, list(WORDS), mixings, of)
    assert_same(expected, mix_words(jax.numpy, in_jax(list(WORDS)), in_jax(mixings), in_jax(of), ties(mixings)))


def test_context():
    edges = np.array([0, 1, 2, 50, 51, 100, 2**31 - 2, 2**31 - 1], np.int32)
    output, tokens, context = (axis.ravel() for axis in np.meshgrid(edges, edges, edges))
    assert_same(cut_input(np, tokens, context), cut_input(jax.numpy, *in_jax([tokens, context])))
    assert_same(cut_output(np, output, tokens, context), cut_output(jax.numpy, *in_jax([output, tokens, context])))
