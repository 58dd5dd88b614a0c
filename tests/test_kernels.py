"""The headers in `kernels/` against the law, function by function and bit for bit: as host C++ for every vector
extension, and by the instructions of a CUDA device (ptx/). Compiled for GPUs where there is nvcc."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
from fractions import Fraction
from typing import Any

import cuda_ptx
import numpy as np
import pytest
from native import library, words
from profiles import REPOSITORY
from ptx.compile import MISSING
from ptx.device import COMPILER

from servegen_gpu.backends.native.build import EXTENSIONS
from servegen_gpu.law import context, dependence, elementary, normal, position, variates
from servegen_gpu.law.address import MAX_ATTEMPTS, Purpose, draw
from servegen_gpu.law.philox import philox4x32
from servegen_gpu.law.tables import find_bin, reason_tokens
from servegen_gpu.request import schema
from servegen_gpu.request.families import DRAWS, FIRST_DRAWS, GAMMA, ROWS
from servegen_gpu.request.tables import Tables, pack_tables
from servegen_gpu.rules import CountRule

N = 20_011  # no multiple of any strip
DEVICE = "device"
"""Beside vector extensions: the instructions of a CUDA device."""

needs_ptx = pytest.mark.skipif(not COMPILER or bool(MISSING), reason=MISSING or "no g++ to run PTX")
each_text = pytest.mark.parametrize("extension", [*EXTENSIONS, pytest.param(DEVICE, marks=needs_ptx)])
KERNELS = REPOSITORY / "kernels"


class Arrays(ctypes.Structure):
    """ShimArrays in kernels/shim.h."""

    _fields_ = (
        ("x", ctypes.c_void_p * 4),
        ("k", ctypes.c_void_p * 4),
        ("w", ctypes.c_void_p * 4),
        ("y", ctypes.c_void_p * 5),
        ("m", ctypes.c_void_p * 4),
        ("table", ctypes.c_void_p * 3),
        ("size", ctypes.c_int64),
    )


def run(extension: str, name: str, n: int, x=(), k=(), w=(), table=(), size=0) -> tuple[list[Any], list[Any]]:
    """Doubles and integers that a function of the headers gives."""
    kept = {
        "x": [np.ascontiguousarray(a, np.float64) for a in x],
        "k": [np.ascontiguousarray(a, np.int64) for a in k],
        "w": [np.ascontiguousarray(a, np.uint32) for a in w],
        "y": [np.empty(n) for _ in range(5)],
        "m": [np.empty(n, np.int64) for _ in range(4)],
        "table": list(table),
    }
    arrays = Arrays(size=size)
    for field, held in kept.items():
        for i, array in enumerate(held):
            getattr(arrays, field)[i] = array.ctypes.data
    if extension == DEVICE:
        cuda_ptx.module("shim.h").launch(f"shim_{name}", -(-n // 256), 256, [bytes(arrays), n])
    else:
        library(extension).function(name)(ctypes.byref(arrays), n)
    return kept["y"], kept["m"]


def bits(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, np.float64).view(np.int64)


def equal(ours: np.ndarray, law: np.ndarray) -> bool:
    """Equal bit for bit; 0 and -0 differ."""
    return np.array_equal(bits(ours), bits(law)) if ours.dtype == np.float64 else np.array_equal(ours, law)


def wide(seed: int) -> list[np.ndarray]:
    """Four arrays of words."""
    return [words(N, seed + 7919 * i) if i else np.roll(words(N, seed), 3) for i in range(4)]


@each_text
def test_philox(extension):
    key, counter = (0xA4093822, 2**32 - 1), wide(1)
    _, ours = run(extension, "philox4x32", N, k=[key], w=counter)
    law = philox4x32(np, tuple(c.astype(np.uint64) for c in counter), key)
    assert all(equal(a, b.astype(np.int64)) for a, b in zip(ours, law, strict=True))


@each_text
def test_draw(extension):
    ordinal, client, window, item = wide(2)
    window, item = window >> 8, item >> 16
    place = {"ordinal": ordinal, "client": client, "window": window, "item": item}
    for purpose in Purpose:
        _, ours = run(extension, "draw", N, k=[(5, 9), (purpose, 65_535, 7)], w=list(place.values()))
        law = draw(np, (5, 9), purpose, **{k: v.astype(np.uint64) for k, v in place.items()}, turn=65_535, stream=7)
        assert all(equal(a, b.astype(np.int64)) for a, b in zip(ours, law, strict=True))


def positive() -> np.ndarray:
    """Normal doubles of all sizes, and neighbours of powers of two."""
    spread = (words(N, 3).astype(np.uint64) << np.uint64(31)).astype(np.int64)
    some = np.clip(spread, 1 << 52, (0x7FE << 52) - 1).view(np.float64)
    near = 2.0 ** np.arange(-40, 41)
    edges = np.array([1.0, np.nextafter(1, 0), np.nextafter(1, 2), np.sqrt(0.5), np.sqrt(2), 2.0**-1022, 1e-300])
    return np.concatenate((near, np.nextafter(near, 0), np.nextafter(near, 1e9), edges, some))


def uniforms(seed: int) -> np.ndarray:
    return variates.uniform32(np, words(N, seed).astype(np.uint64))


REALS = np.concatenate(([0.0, -0.0, -708, 709, -1e9, 1e9, 0.5, -0.5], 1500 * (uniforms(4) - 0.5), uniforms(5) - 0.5))


@each_text
@pytest.mark.parametrize(
    ("name", "x"),
    [("log", positive()), ("exp", REALS)],
)
def test_elementary(extension, name, x):
    ours, _ = run(extension, name, len(x), x=[x])
    assert equal(ours[0], getattr(elementary, name)(np, x))


def dividends() -> tuple[np.ndarray, np.ndarray]:
    """Dividends and divisors of all sizes, whose quotients are anything, whole, or close to halfway between doubles."""
    b, q = (1 + uniforms(21)) * 2.0 ** (words(N, 22) % 300), 1 + uniforms(23)
    exact = np.rint(uniforms(24) * 2**20)
    half = Fraction(1, 2**53)
    halfway = [float(Fraction(x) * (Fraction(y) + half)) for x, y in zip(b.tolist(), q.tolist(), strict=True)]
    edges = np.array([[0.0, 1.0, 2.0**62, 2.0**62 - 512], [7.0, 1.0, 2.0**62, 2.0**62]])
    dividend = np.concatenate((uniforms(25) * b, exact * b, halfway, np.negative(halfway), edges[0]))
    return dividend, np.concatenate((np.tile(b, 4), edges[1]))


@each_text
def test_quotients(extension):
    a, b = dividends()
    ours, _ = run(extension, "quotient", len(a), x=[a, b])
    assert equal(ours[0], a / b)


@needs_ptx
def test_quotients_do_not_depend_on_how_a_device_approximates():
    a, b = dividends()
    device = cuda_ptx.module("shim.h")
    try:
        for by in (-8, -2, -1, 1, 2, 8):
            device.move_seeds(by)
            ours, _ = run(DEVICE, "quotient", len(a), x=[a, b])
            assert equal(ours[0], a / b), by
        device.move_seeds(1 << 18)  # a seed of two bits is too little
        ours, _ = run(DEVICE, "quotient", len(a), x=[a, b])
        assert not equal(ours[0], a / b)
    finally:
        device.move_seeds(0)


def every_row() -> np.ndarray:
    """Words at both ends of every row of the quantile's table, below and above the middle, and anywhere."""
    begin = np.arange(normal.FIRST_QUARTER, normal.FIRST_QUARTER + normal.QUANTILE.shape[1] + 1) << normal.QUARTER_BITS
    near = np.rint(begin.view(np.float64)).astype(np.int64)[:, None] + np.arange(-2, 3)
    lower = np.clip(near.ravel(), 0, 2**31 - 1).astype(np.uint32)
    return np.resize(np.concatenate((lower, ~lower, words(N, 6))), 1 << 15)  # whole strips


@each_text
@pytest.mark.parametrize("name", ["normal_of_word", "normals_of"])
def test_normals(extension, name):
    if extension == DEVICE and name == "normals_of":
        pytest.skip("strips are for the CPU")
    word = every_row()
    ours, _ = run(extension, name, len(word), w=[word])
    assert equal(ours[0], normal.normal_of_word(np, word.astype(np.uint64)))


@each_text
@pytest.mark.parametrize("name", ["word_of_normal", "words_of"])
def test_words_of_normals(extension, name):
    if extension == DEVICE and name == "words_of":
        pytest.skip("strips are for the CPU")
    border = np.arange(-32, 33) / normal.ROWS_PER_UNIT
    z = np.concatenate((border, np.nextafter(border, -9), np.nextafter(border, 9), REALS / 50, [normal.Z_LIMIT, 1e300]))
    z = np.resize(np.concatenate((z, -z)), 1 << 15)
    _, ours = run(extension, name, len(z), x=[z])
    assert equal(ours[0], normal.word_of_normal(np, z).astype(np.int64))


def test_the_header_has_the_tables_of_the_law():
    spec = importlib.util.spec_from_file_location("normal_tables", KERNELS / "normal_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.header() == (KERNELS / "normal_tables.h").read_text(), "run python kernels/normal_tables.py"


@each_text
def test_variates(extension):
    w = wide(8)
    law_words = tuple(a.astype(np.uint64) for a in w)
    ours, _ = run(extension, "uniform32", N, w=w)
    assert equal(ours[0], variates.uniform32(np, law_words[0]))
    ours, _ = run(extension, "uniform52", N, w=w)
    assert equal(ours[0], variates.uniform52(np, law_words[0], law_words[1]))
    shape = np.exp(8 * uniforms(9) - 5)
    ours, _ = run(extension, "log_weibull", N, x=[1 / shape], w=w)
    assert equal(ours[0], variates.log_weibull(np, law_words, 1 / shape))


@each_text
def test_gaps(extension):
    """Constants by family, and gaps by draw: those of gaps and those of first gaps."""
    w, shape = wide(8), np.exp(8 * uniforms(9) - 5)
    law_words = tuple(a.astype(np.uint64) for a in w)
    family = np.resize(np.unique(DRAWS), N)
    ordinary = variates.gap_constants(np, family, shape)
    first, power = variates.equilibrium_constants(np, family, shape)
    ours, _ = run(extension, "gap_constants", N, x=[shape], k=[family])
    assert all(equal(a, b) for a, b in zip(ours, vars(ordinary).values(), strict=False))
    ours, draw_of = run(extension, "equilibrium_constants", N, x=[shape], k=[family])
    assert all(equal(a, b) for a, b in zip(ours, (*vars(first).values(), power), strict=True))
    assert equal(draw_of[0], FIRST_DRAWS[family].astype(np.int64))
    ours, _ = run(extension, "dispersion", N, x=[shape], k=[family])
    assert equal(ours[0], variates.dispersion(np, family, shape))
    for of, draws in ((ordinary, family), (first, FIRST_DRAWS[family])):
        for code in np.unique(draws):
            at = np.flatnonzero(draws == code)
            some, here = of.take(at), [a[at] for a in w]
            ours, _ = run(extension, "try_log_gap", len(at), x=vars(some).values(), k=[[code]], w=here)
            log_gap, accepted = variates.try_log_gap(np, int(code), tuple(a[at] for a in law_words), some)
            assert equal(ours[0], log_gap)
            assert np.array_equal(ours[1] == 1, np.ones(len(at), bool) if accepted is None else accepted)
            assert (accepted is None) == (code != GAMMA)
            assert code != GAMMA or 0 < accepted.sum() < len(at)


def test_families_have_the_same_codes():
    text = (KERNELS / "variates.h").read_text().split("#define SG_DRAWS(X)")[1].split("\n")[0]
    codes = {name: int(code) for name, code in re.findall(r"X\((\w+), (\d+)\)", text)}
    assert codes == {row.name.upper(): row.code for row in ROWS if row.draw == row.code}


@each_text
def test_ticks(extension):
    gap, unit = REALS, np.roll(REALS, 5)
    for power in (0, 31, 40, 52, 61, 62):
        per_unit = np.full(len(gap), 2.0**power)
        _, ours = run(extension, "gap_ticks", len(gap), x=[gap, unit, per_unit])
        assert equal(ours[0], variates.gap_ticks(np, gap, unit, per_unit))
    counts = np.concatenate([2**p + np.arange(-1, 2) for p in range(1, 32)] + [np.arange(1, 99)])
    _, ours = run(extension, "tick_bits", len(counts), k=[counts])
    assert equal(ours[0], position.tick_bits(np, counts))


def sums() -> tuple[np.ndarray, np.ndarray]:
    """S and G: 0 <= S <= G <= 2**62."""
    w = wide(10)
    total = (w[0].astype(np.int64) << 30 | w[1] >> 2) + 1
    part = (total.astype(np.float64) * uniforms(11)).astype(np.int64)
    part[::9], part[1::9] = total[::9], 0
    return np.minimum(part, total), total


@each_text
def test_position(extension):
    part, total = sums()
    rotation, occupancy = words(N, 12).astype(np.int64), np.minimum(1, 2 * uniforms(13))
    _, ours = run(extension, "on_circle", N, k=[part, total, rotation], x=[occupancy])
    assert equal(ours[0], position.on_circle(np, part, total, occupancy, rotation))
    _, ours = run(extension, "from_start", N, k=[part, total])
    x, inside = position.from_start(np, part, total)
    assert equal(ours[0], x)
    assert np.array_equal(ours[1] == 1, inside)
    x = words(N, 14).astype(np.uint64)
    first, start, slope = x >> np.uint64(3), x >> np.uint64(7), (x >> np.uint64(2)) + np.uint64(1)
    _, ours = run(extension, "clock_us", N, k=[x, first, start, slope])
    assert equal(ours[0], position.clock_us(np, x, first, start, slope).astype(np.int64))


@each_text
def test_tables(extension):
    sizes = np.array([1, 2, 3, 1000, 40, 5000])
    values = np.arange(sizes.sum())
    weights = uniforms(15)[: sizes.sum()] ** 8 + 1e-9
    tables = pack_tables(Tables.from_weights(np.concatenate(([0], np.cumsum(sizes))), values, weights))
    word = np.concatenate((words(N, 16), tables.thresholds, tables.thresholds + np.uint32(1)))
    for table in range(len(sizes)):
        which = np.full(len(word), table)
        parts = (tables.thresholds, tables.guide)
        _, ours = run(extension, "find_bin", len(word), k=[which], w=[word], table=parts, size=tables.guide_bits)
        assert equal(ours[0], find_bin(np, word, which, tables))


@each_text
def test_mixing(extension):
    w = wide(17)
    for fields in (2, 3, 4):
        spearman = np.where(np.eye(fields, dtype=bool), 1.0, 0.4)
        spearman[0, 1] = spearman[1, 0] = 0.0
        mixing = dependence.mixing_matrix(spearman)
        _, ours = run(extension, "mix_words", N, x=[mixing], w=w, size=fields)
        law = dependence.mix_words(np, [a.astype(np.uint64) for a in w[:fields]], mixing)
        assert all(equal(a, b.astype(np.int64)) for a, b in zip(ours[:fields], law, strict=True))


@each_text
def test_context(extension):
    edges = np.array([0, 1, 2, 3, 50, 51, 100, 2**31 - 2, 2**31 - 1])
    output, tokens, limit = (axis.ravel() for axis in np.meshgrid(edges, edges, edges))
    narrow = [a.astype(np.int32) for a in (output, tokens, limit)]
    _, ours = run(extension, "cut_input", len(output), k=[tokens, limit])
    assert equal(ours[0], context.cut_input(np, *narrow[1:]).astype(np.int64))
    _, ours = run(extension, "cut_output", len(output), k=[output, tokens, limit])
    assert equal(ours[0], context.cut_output(np, *narrow).astype(np.int64))


@each_text
def test_reason_tokens(extension):
    output, ratio = (words(N, 18) >> 1).astype(np.int32), (words(N, 19) % schema.RATIO_STEPS).astype(np.int32)
    output[:99], output[99] = np.arange(99), 2**31 - 1
    _, ours = run(extension, "reason_tokens", N, k=[output, ratio])
    assert equal(ours[0], reason_tokens(np, output, ratio).astype(np.int64))


@each_text
def test_constants(extension):
    law = [schema.SCALAR_FIELDS, schema.TURN_FIELDS, len(schema.MODALITIES), schema.INPUT, schema.OUTPUT]
    law += [schema.RATIO_STEPS, *CountRule, *range(len(dependence.KINDS))]
    law += [purpose for purpose in Purpose if purpose <= Purpose.TURN]
    law += [MAX_ATTEMPTS, position.RENEWAL_BITS, 1 << position.RENEWAL_BITS]
    _, ours = run(extension, "constants", len(law) + 1)
    assert ours[0].tolist() == [*law, len(law)]  # what comes after the last is how many there are


def test_every_function_of_the_headers_has_a_test():
    entries = set((KERNELS / "shim.h").read_text().split("SG_ENTRY(")[2:])
    named = {entry.partition(")")[0] for entry in entries}
    text = (REPOSITORY / "tests" / "test_kernels.py").read_text()
    assert named
    assert all(f'"{name}"' in text for name in named)


CUDA = """
#include "context.h"
#include "dependence.h"
#include "position.h"
#include "request.h"
#include "tables.h"
#include "variates.h"
namespace SG_NAMESPACE {  // where log and exp are the law's
__global__ void every(const double* x, const int64_t* k, Tables tables, double* y, int64_t* m) {
    const int i = threadIdx.x;
    const Words w = draw(Key{1, 2}, GAP, i, i, i);
    y[0] = log(x[i]) + exp(x[i]) + normal_of_word(w.w1) + word_of_normal(x[i]) + log_weibull(w, x[i]);
    const LogGap gap = try_log_gap(static_cast<uint8_t>(k[4]), w, GapConstants{x[0], x[1], x[2], x[3]});
    y[1] = gap.log_gap + gap.accepted;
    m[0] = gap_ticks(x[0], x[1], x[2]) + tick_bits(k[0]) + on_circle(k[0], k[1], x[0], k[2]);
    m[2] = find_bin(w.w0, 3, tables);
    uint32_t words[3] = {w.w0, w.w1, w.w2};
    mix_words<3>(x, 3, words);
    m[1] = from_start(k[0], k[1]).x + clock_us(k[0], k[1], k[2], k[3]) + words[1] + words[2];
    m[3] = cut_output(cut_input(i, 5), i, 7) + reason_tokens(i, 3);
}
}
"""


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_headers_compile_for_gpus(architecture, tmp_path):
    nvcc = shutil.which("nvcc")
    if not nvcc:
        pytest.skip("no nvcc on the path")
    (tmp_path / "every.cu").write_text(CUDA)
    flags = ["--std=c++17", "--fmad=false", "--cubin", f"-arch={architecture}", f"-I{KERNELS}", "-Werror=all-warnings"]
    command = [nvcc, *flags, "every.cu", "-o", "every.cubin"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
