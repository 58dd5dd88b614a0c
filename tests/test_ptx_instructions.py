"""Every instruction that ptx/ knows against Python's integers and fractions, at the edges and between them."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from native import words
from ptx.device import COMPILER, PtxModule
from ptx.forms import FORMS
from ptx.parse import Unknown
from ptx.reference import bits_of, compute, raw_of, source_type, value_of
from ptx.translate import translate

pytestmark = pytest.mark.skipif(not COMPILER, reason="no g++ to run PTX")

ROWS = 128
FLOATS = (0.0, -0.0, 1.0, -1.5, 0.5, 2.5, 3.5, 1e-310, -5e-324, 2.0**-150, 255.5, -128.5, 2.0**31, -(2.0**31), 2.0**63)
MORE_FLOATS = (1 / 3, -2 / 3, 1e19, 1e300, -1e300, 3e38, 1 + 2.0**-52, math.pi, math.inf, -math.inf, math.nan)
INTEGERS = (0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 255, 256)
PART = 128
"""Opcodes that are compiled together."""

HEADER = ".version 8.0\n.target sm_90\n.address_size 64\n"
OPCODES = [name for name, form in FORMS.items() if "c" not in form.operands and "approx" not in name]


def values(kind: str, seed: int) -> list[int]:
    """Bits of values of a type: edges, and some between them."""
    bits = bits_of(kind)
    if kind == "pred":
        return [0, 1]
    mixed = [int(w) << 32 | int(v) for w, v in zip(words(24, seed), words(24, seed + 99), strict=True)]
    if kind[0] == "f":
        with np.errstate(over="ignore"):
            edges = [float(np.float32(x)) if kind == "f32" else x for x in FLOATS + MORE_FLOATS]
        return [raw_of(x, kind) for x in edges] + [raw % (1 << bits) for raw in mixed]
    edges = [1 << bits - 1, (1 << bits - 1) - 1, (1 << bits) - 1, (1 << bits) - 2]
    return [raw % (1 << bits) for raw in (*INTEGERS, *edges, *mixed)]


def rows(kinds: list[str], seed: int) -> list[tuple[int, ...]]:
    """Operands of `ROWS` threads: combinations of values, spread evenly over all there are."""
    columns = [values(kind, seed + n) for n, kind in enumerate(kinds)]
    every = math.prod(map(len, columns))
    step = every * 0x9E3779B1 >> 32 | 1
    while math.gcd(step, every) > 1:
        step += 1
    found = []
    for i in range(ROWS):
        at, row = i * step % every, []
        for column in columns:
            at, own = divmod(at, len(column))
            row.append(column[own])
        found.append(tuple(row))
    return found


def register(kind: str) -> str:
    return f".{kind}" if kind == "pred" else f".b{max(16, bits_of(kind))}"


def loaded(n: int, kind: str) -> str:
    """Operand n from its slot of 8 bytes."""
    at = f"[%rd2+{8 * n}]"
    if kind == "pred":
        return f"ld.global.u8 %rs1, {at}; setp.ne.u16 %x{n}, %rs1, 0;"
    return f"ld.global.b{bits_of(kind)} %x{n}, {at};"


def kernel(name: str, opcode: str) -> str:
    """A kernel that computes one row a thread: four slots of operands, one of the result."""
    form = FORMS[opcode]
    to, *kinds = [source_type(letter, form.types) for letter in form.operands]
    inputs = "\n".join(f".reg {register(kind)} %x{n}; {loaded(n, kind)}" for n, kind in enumerate(kinds))
    given = ", ".join(f"%x{n}" for n in range(len(kinds)))
    out = (
        "selp.b64 %rd4, 1, 0, %y; st.global.b64 [%rd3], %rd4;"
        if to == "pred"
        else f"st.global.b{bits_of(to)} [%rd3], %y;"
    )
    return f"""
.visible .entry {name}(.param .u64 rows, .param .u64 results)
{{ .reg .b64 %rd<5>; .reg .b32 %r<2>; .reg .b16 %rs<2>; .reg {register(to)} %y;
ld.param.u64 %rd1, [rows]; ld.param.u64 %rd3, [results];
mov.u32 %r1, %tid.x;
mad.wide.u32 %rd2, %r1, 40, %rd1; mad.wide.u32 %rd3, %r1, 8, %rd3;
{inputs}
{opcode} %y, {given};
{out}
ret; }}
"""


@pytest.mark.parametrize("part", range(-(-len(OPCODES) // PART)))
def test_instructions_are_what_python_computes(part: int) -> None:
    opcodes = OPCODES[part * PART : (part + 1) * PART]
    module = PtxModule(HEADER + "".join(kernel(f"k{n}", opcode) for n, opcode in enumerate(opcodes)))
    for n, opcode in enumerate(opcodes):
        kinds = [source_type(letter, FORMS[opcode].types) for letter in FORMS[opcode].operands[1:]]
        given = rows(kinds, n)
        if opcode.startswith("fns"):  # undefined for bits that are not there
            given = [(mask, base % 32, offset) for mask, base, offset in given]
        slots = np.zeros((ROWS, 5), np.uint64)
        slots[:, : len(kinds)] = np.array(given, np.uint64).reshape(ROWS, len(kinds))
        out = np.zeros(ROWS, np.uint64)
        module.launch(f"k{n}", 1, ROWS, [slots.ctypes.data, out.ctypes.data])
        for row, found in zip(given, out.tolist(), strict=True):
            expected, kind = compute(opcode, list(row))
            if found != expected:
                both = [value_of(raw, kind) for raw in (found, expected)]
                told = [value_of(raw, of) for raw, of in zip(row, kinds, strict=True)]
                assert all(x != x for x in both), f"{opcode} of {told} is {both[0]}, not {both[1]}"  # NaN is NaN


@functools.cache
def wide(body: str, given: int, results: int) -> PtxModule:
    """A kernel of one thread that makes %z0, %z1, … of %a0, %a1, …, 64 bits each."""
    inputs = "".join(f"ld.param.u64 %a{n}, [a{n}];\n" for n in range(given))
    outputs = "".join(f"st.global.b64 [%out+{8 * n}], %z{n};\n" for n in range(results))
    params = "".join(f".param .u64 a{n}, " for n in range(given))
    text = f"""{HEADER}
.visible .entry k({params}.param .u64 out)
{{ .reg .b64 %a<{given}>, %z<{results}>, %out, %t<8>; .reg .b32 %r<16>; .reg .b16 %h<8>; .reg .pred %p<4>;
{inputs}ld.param.u64 %out, [out];
{body}
{outputs}ret; }}"""
    return PtxModule(text)


def run_wide(body: str, given: list[int], results: int) -> list[int]:
    out = np.zeros(results, np.uint64)
    wide(body, len(given), results).launch("k", 1, 1, [*given, out.ctypes.data])
    return [int(x) for x in out]


WIDE = [0, 1, 2**64 - 1, 2**63, 2**32 - 1, 2**32, 0x0123456789ABCDEF, 0xFEDCBA9876543210]


def test_carries_go_through_sums_differences_and_products() -> None:
    body = """
add.cc.u64 %z0, %a0, %a2; addc.cc.u64 %z1, %a1, %a3; addc.u64 %z2, 0, 0;
sub.cc.u64 %z3, %a0, %a2; subc.cc.u64 %z4, %a1, %a3; subc.u64 %z5, 0, 0;
mov.b64 {%r0, %r1}, %a0; mov.b64 {%r2, %r3}, %a2;
mul.lo.u32 %r4, %r0, %r2; mul.hi.u32 %r5, %r0, %r2;
mad.lo.cc.u32 %r5, %r0, %r3, %r5; madc.hi.u32 %r6, %r0, %r3, 0;
mad.lo.cc.u32 %r5, %r1, %r2, %r5; madc.hi.cc.u32 %r6, %r1, %r2, %r6; addc.u32 %r7, 0, 0;
mad.lo.cc.u32 %r6, %r1, %r3, %r6; madc.hi.u32 %r7, %r1, %r3, %r7;
mov.b64 %z6, {%r4, %r5}; mov.b64 %z7, {%r6, %r7};"""
    for low, high in zip(WIDE, WIDE[::-1], strict=True):
        a, b = high << 64 | low, low << 64 | (high ^ 5)
        z = run_wide(body, [a % 2**64, a >> 64, b % 2**64, b >> 64], 8)
        assert z[0] + (z[1] << 64) + (z[2] << 128) == a + b
        assert z[3] + (z[4] << 64) + (z[5] << 128) == (a - b) % 2**192
        assert z[6] + (z[7] << 64) == (a % 2**64) * (b % 2**64)


def test_parts_of_registers_predicates_and_tables_of_jumps() -> None:
    body = """
mov.b64 {%r0, %r1}, %a0; mov.b64 %z0, {%r1, %r0};
mov.b32 {%h0, %h1}, %r0; mov.b32 %r2, {%h1, %h0}; cvt.u64.u32 %z1, %r2;
mov.b64 {%h0, %h1, %h2, %h3}, %a0; mov.b64 %z2, {%h3, %h2, %h1, %h0};
mov.b64 {_, %r3}, %a0; cvt.u64.u32 %z3, %r3;
setp.lt.u64 %p0|%p1, %a0, %a1; selp.b64 %z4, 1, 0, %p0; selp.b64 %z5, 1, 0, %p1;
setp.eq.and.u64 %p2, %a0, %a0, !%p0; selp.b64 %z6, 1, 0, %p2;
set.lt.u32.u64 %r4, %a0, %a1; cvt.u64.u32 %z7, %r4;
@%p0 mov.u64 %z8, 10;
@!%p0 mov.u64 %z8, 20;
cvt.u32.u64 %r5, %a1; and.b32 %r5, %r5, 1;
ts: .branchtargets $A, $B;
brx.idx %r5, ts;
$A: mov.u64 %z9, 100; bra $C;
$B: mov.u64 %z9, 200;
$C: { .reg .b64 t; $L: mov.u64 t, 3; add.s64 %z10, t, -5; }
{ .reg .b64 t; bra $L; trap; $L: mov.u64 t, 0x10; add.s64 %z10, %z10, t; }"""
    for a, b in [(0x0011223344556677, 2**63), (2**63, 7)]:
        z = run_wide(body, [a, b], 11)
        halves = [a >> 16 * i & 0xFFFF for i in range(4)]
        assert z[0] == (a % 2**32) << 32 | a >> 32
        assert z[1] == halves[0] << 16 | halves[1]
        assert z[2] == halves[0] << 48 | halves[1] << 32 | halves[2] << 16 | halves[3]
        assert z[3] == a >> 32
        assert z[4:8] == [a < b, a >= b, a >= b, 0xFFFFFFFF * (a < b)]
        assert z[8:] == [10 if a < b else 20, 200 if b & 1 else 100, 14]


@functools.cache
def seeds() -> PtxModule:
    return PtxModule(HEADER + kernel("rcp", "rcp.approx.ftz.f64") + kernel("rsqrt", "rsqrt.approx.ftz.f64"))


@pytest.mark.parametrize("moved", [-3, 0, 3])
def test_seeds_of_division_are_near_and_only_the_upper_half_of_a_double(moved: int) -> None:
    seeds().move_seeds(moved)
    x = np.abs(np.array([value_of(raw, "f64") for raw in values("f64", 4)]))
    x = np.resize(x[np.isfinite(x) & (x > 1e-300) & (x < 1e300)], ROWS)
    slots, out = np.zeros((ROWS, 5)), np.zeros(ROWS)
    slots[:, 0] = x
    for name, exact in (("rcp", 1 / x), ("rsqrt", 1 / np.sqrt(x))):
        seeds().launch(name, 1, ROWS, [slots.ctypes.data, out.ctypes.data])
        assert np.abs(out / exact - 1).max() < 2.0**-17
        assert not (out.view(np.uint64) & np.uint64(0xFFFFFFFF)).any()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("add.f64 %d0, %d1, %d2;", "may be contracted"),
        ("mul.rn.ftz.f32 %f0, %f1, %f2;", "unknown"),
        ("ex2.approx.f32 %f0, %f1;", "unknown"),
        ("add.s32 %r0, %r1;", "operands"),
        ("setp.ltu.s32 %p0, %r0, %r1;", "unknown"),
        ("ld.global.v3.u32 {%r0, %r1, %r2}, [%d0];", "unknown"),
        ("shfl.up.b32 %r0, %r1, 1, 0;", "unknown"),
        ("bra nowhere;", "unknown"),
        (".reg .b128 %q;", "unknown"),
        ("tex.2d.v4.f32.f32 {%f0}, [t];", "unknown"),
    ],
)
def test_what_is_not_known_is_refused_with_its_line(statement: str, why: str) -> None:
    text = f"{HEADER}.visible .entry k()\n{{\n.reg .b64 %d<3>; .reg .b32 %r<4>, %f<3>;\n{statement}\nret;\n}}\n"
    with pytest.raises(Unknown, match=rf"PTX line 7: {why}.*: {statement.split()[0]}"):
        translate(text)
