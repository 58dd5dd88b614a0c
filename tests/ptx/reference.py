"""What instructions compute, in Python's own integers and fractions: the oracle of instructions.h."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction

from ptx.forms import FORMS

Value = int | float | bool


def bits_of(kind: str) -> int:
    """Bits of a type."""
    return 1 if kind == "pred" else int(kind[1:])


def value_of(raw: int, kind: str) -> Value:
    """What raw bits are as a type."""
    bits = bits_of(kind)
    raw %= 1 << bits
    if kind[0] == "f":
        return float(struct.unpack("<f" if bits == 32 else "<d", raw.to_bytes(bits // 8, "little"))[0])
    if kind == "pred":
        return bool(raw)
    return raw - (raw >> (bits - 1) << bits) if kind[0] == "s" else raw


def raw_of(value: Value, kind: str) -> int:
    """The bits of a value of a type."""
    if kind[0] == "f":
        return int.from_bytes(struct.pack("<f" if kind == "f32" else "<d", value), "little")
    return int(value) % (1 << bits_of(kind))


# Rounding of exact numbers

DIGITS, LEAST = {"f32": 24, "f64": 53}, {"f32": -149, "f64": -1074}


def whole(x: Fraction, mode: str) -> int:
    """The integer that a mode rounds to."""
    by_mode: dict[str, Callable[[Fraction], int]] = {"n": round, "z": math.trunc, "m": math.floor, "p": math.ceil}
    return by_mode[mode[1]](x)


def nearest(x: Fraction, kind: str, mode: str, zero: float = 0.0) -> float:
    """An exact number as a float; `zero` is what 0 becomes."""
    if x == 0:
        return zero
    digits, least = DIGITS[kind], LEAST[kind]
    exponent = abs(x).numerator.bit_length() - abs(x).denominator.bit_length() - digits
    while abs(x) >= Fraction(2) ** (exponent + digits):
        exponent += 1
    unit = Fraction(2) ** max(exponent, least)
    rounded = whole(x / unit, mode) * unit
    if rounded == 0:
        return 0.0 if x > 0 else -0.0
    most = (Fraction(2) ** digits - 1) * Fraction(2) ** (971 if kind == "f64" else 104)
    if abs(rounded) > most:
        inward = mode == "rz" or (mode == "rm" and x > 0) or (mode == "rp" and x < 0)
        return (float(most) if inward else math.inf) * (1 if x > 0 else -1)
    return float(rounded)


def _arithmetic(
    exact: Callable[..., Fraction], special: Callable[..., float], zero: Callable[..., tuple[float, ...]]
) -> Callable[..., float]:
    """A rounded operation.

    Parameters
    ----------
    exact : callable
        Of finite numbers, where there is a result.
    special : callable
        Of others, by the rules of IEEE 754, which Python's floats follow.
    zero : callable
        Terms whose signs an exact zero has; where they differ, the mode decides.
    """

    def computed(mode: str, kind: str, *x: float) -> float:
        if not all(map(math.isfinite, x)):
            return special(*x)
        try:
            total = exact(*map(Fraction, x))
        except ZeroDivisionError:
            return special(*x)
        signs = {math.copysign(1.0, term) for term in zero(*x)}
        agreed = signs.pop() if len(signs) == 1 else -1.0 if mode == "rm" else 1.0
        return nearest(total, kind, mode, math.copysign(0.0, agreed))

    return computed


def _divided(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


def _sign(a: float, b: float) -> float:
    return math.copysign(1, a) * math.copysign(1, b)


def _fused(a: float, b: float, c: float) -> float:
    return c if math.isfinite(a) and math.isfinite(b) else a * b + c


def _root(mode: str, kind: str, a: float) -> float:
    if math.isnan(a) or a == 0 or a == math.inf:
        return a
    if a < 0:
        return math.nan
    shift = 4 * DIGITS[kind] + 1100
    scaled = Fraction(a) * 4**shift
    low = math.isqrt(int(scaled))
    inexact = low * low != scaled
    return nearest(Fraction(2 * low + inexact, 2 << shift), kind, mode)


FLOATS: dict[str, Callable[..., float]] = {
    "add": _arithmetic(lambda a, b: a + b, lambda a, b: a + b, lambda a, b: (a, b)),
    "sub": _arithmetic(lambda a, b: a - b, lambda a, b: a - b, lambda a, b: (a, -b)),
    "mul": _arithmetic(lambda a, b: a * b, lambda a, b: a * b, lambda a, b: (_sign(a, b),)),
    "div": _arithmetic(lambda a, b: a / b, _divided, lambda a, b: (_sign(a, b),)),
    "fma": _arithmetic(lambda a, b, c: a * b + c, _fused, lambda a, b, c: (_sign(a, b), c)),
    "rcp": _arithmetic(lambda a: 1 / a, lambda a: _divided(1.0, a), lambda a: (a,)),
    "sqrt": _root,
}


def _least(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return min(a, b, key=lambda x: (x, math.copysign(1, x)))


# Integers


def _divide(a: int, b: int) -> int:
    return -1 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _extract(kind: str, a: int, position: int, length: int) -> int:
    most, length, position = bits_of(kind) - 1, length & 255, position & 255
    raw = a % (1 << (most + 1))
    sign = kind[0] == "s" and length > 0 and raw >> min(position + length - 1, most) & 1
    return sum(
        ((raw >> (position + i) & 1) if i < length and position + i <= most else sign) << i for i in range(most + 1)
    )


def _insert(kind: str, a: int, b: int, position: int, length: int) -> int:
    for i in range(length & 255):
        at = (position & 255) + i
        if at < bits_of(kind):
            b = b & ~(1 << at) | (a >> i & 1) << at
    return b


def _nth_set(mask: int, base: int, offset: int) -> int:
    if offset == 0:
        return base if mask >> base & 1 else -1
    order = range(base, 32) if offset > 0 else range(base, -1, -1)
    found = [i for i in order if mask >> i & 1]
    return found[abs(offset) - 1] if len(found) >= abs(offset) else -1


def _first_bit(a: int) -> int:
    return (~a if a < 0 else a).bit_length() - 1


def _logic(a: int, b: int, c: int, table: int) -> int:
    return sum((table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1) & 1) << i for i in range(32))


def _permuted(a: int, b: int, selector: int) -> int:
    data = (b << 32 | a).to_bytes(8, "little")
    chosen = [(data[s & 7], s & 8) for s in (selector >> 4 * i & 15 for i in range(4))]
    return sum((255 * (byte >> 7) if sign else byte) << 8 * i for i, (byte, sign) in enumerate(chosen))


def _funnel(modifiers: list[str], low: int, high: int, by: int) -> int:
    by = by & 31 if modifiers[1] == "wrap" else min(by, 32)
    both = high << 32 | low
    return both << by >> 32 if modifiers[0] == "l" else both >> by


def _clamped(x: int, kind: str) -> int:
    bits = bits_of(kind)
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if kind[0] == "s" else (0, (1 << bits) - 1)
    return max(low, min(high, x))


def _mask(position: int, length: int, wraps: bool) -> int:
    if wraps:
        position, length = position & 31, length & 31
    return ((1 << min(length, 32)) - 1) << min(position, 32)


def _converted(modifiers: list[str], to: str, source: str, x: Value) -> Value:
    mode = next((m for m in modifiers if m[0] == "r"), "")
    if source[0] != "f":
        if to[0] == "f":
            return nearest(Fraction(int(x)), to, mode)
        return _clamped(int(x), to) if "sat" in modifiers else int(x)
    if not math.isfinite(x) or (to[0] == "f" and x == 0):
        if to[0] == "f":
            return x
        if math.isnan(x):
            return 1 << (bits_of(to) - 1) if "64" in source + to else 0
        return _clamped((1 << 99) * (1 if x > 0 else -1), to)
    if to[0] != "f":
        return _clamped(whole(Fraction(x), mode), to)
    if mode[-1:] == "i":
        return nearest(Fraction(whole(Fraction(x), mode)), to, "rn", math.copysign(0.0, x))
    return nearest(Fraction(x), to, mode or "rn")


TESTS: dict[str, Callable[[float, str], bool]] = {
    "finite": lambda x, _: math.isfinite(x),
    "infinite": lambda x, _: math.isinf(x),
    "number": lambda x, _: not math.isnan(x),
    "notanumber": lambda x, _: math.isnan(x),
    "normal": lambda x, kind: math.isfinite(x) and abs(x) >= 2.0 ** (LEAST[kind] + DIGITS[kind] - 1),
    "subnormal": lambda x, kind: 0 < abs(x) < 2.0 ** (LEAST[kind] + DIGITS[kind] - 1),
}

SIMPLE: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "mul.wide": lambda a, b: a * b,
    "mad.lo": lambda a, b, c: a * b + c,
    "mad.wide": lambda a, b, c: a * b + c,
    "div": _divide,
    "rem": lambda a, b: a - b * _divide(a, b) if b else a,
    "sad": lambda a, b, c: c + abs(a - b),
    "neg": lambda a: -a,
    "abs": abs,
    "min": min,
    "max": max,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "cnot": lambda a: a == 0,
    "fns": _nth_set,
    "lop3": _logic,
    "prmt": _permuted,
    "bmsk.clamp": lambda a, b: _mask(a, b, False),
    "bmsk.wrap": lambda a, b: _mask(a, b, True),
}


def compute(opcode: str, raws: list[int]) -> tuple[int, str]:
    """Bits of the result, and its type, of bits of the sources.

    Parameters
    ----------
    opcode : str
        One of `FORMS`, but for those that carry.
    raws : list of int
    """
    form = FORMS[opcode]
    kinds = [source_type(letter, form.types) for letter in form.operands]
    x: list[Value] = [value_of(raw, kind) for raw, kind in zip(raws, kinds[1:], strict=True)]
    head, *modifiers = [m for m in opcode.split(".") if m not in form.types]
    return raw_of(_value(head, modifiers, form.types, x), kinds[0]), kinds[0]


def source_type(letter: str, types: tuple[str, ...]) -> str:
    """The type that a letter of `FORMS` stands for."""
    first = types[0]
    wide = f"{first[0]}{2 * bits_of(first)}"
    return {"t": first, "f": types[-1], "u": "u32", "i": "s32", "p": "pred", "w": wide}[letter]


def _value(head: str, modifiers: list[str], types: tuple[str, ...], x: list[Value]) -> Value:
    kind = types[0]
    if head == "cvt":
        return _converted(modifiers, types[0], types[1], x[0])
    if head == "testp":
        return TESTS[modifiers[0]](float(x[0]), kind)
    if kind[0] == "f" and head in ("min", "max"):
        return _least(*map(float, x)) if head == "min" else -_least(-float(x[0]), -float(x[1]))
    if head == "copysign":
        return math.copysign(x[1], x[0])
    if kind[0] == "f" and head in FLOATS:
        return FLOATS[head](modifiers[0], kind, *x)
    if head in ("selp", "slct"):
        return x[0] if (x[2] if head == "selp" else x[2] >= 0) else x[1]
    if kind[0] == "f" and head in ("neg", "abs"):
        return -x[0] if head == "neg" else abs(x[0])
    if head == "not" and kind == "pred":
        return not x[0]
    return _whole_value(head, modifiers, kind, [int(v) for v in x])


def _whole_value(head: str, modifiers: list[str], kind: str, ints: list[int]) -> int:
    bits = bits_of(kind)
    match head:
        case "not":
            return ~ints[0]
        case "mul" | "mad" if modifiers[0] == "hi":
            high, rest = (ints[0] * ints[1]) >> bits, sum(ints[2:])
            return _clamped(raw_signed(high, kind) + rest, kind) if "sat" in modifiers else high + rest
        case "add" | "sub" if "sat" in modifiers:
            return _clamped(SIMPLE[head](*ints), kind)
        case "shl":
            return ints[0] << min(ints[1], 64)
        case "shr":
            return ints[0] >> min(ints[1], 64)
        case "bfe":
            return _extract(kind, *ints)
        case "bfi":
            return _insert(kind, *ints)
        case "popc":
            return ints[0].bit_count()
        case "clz":
            return bits - ints[0].bit_length()
        case "brev":
            return int(f"{ints[0]:0{bits}b}"[::-1], 2)
        case "bfind":
            found = _first_bit(ints[0])
            return bits - 1 - found if "shiftamt" in modifiers and found >= 0 else found
        case "shf":
            return _funnel(modifiers, *ints)
    return SIMPLE[".".join([head, *modifiers])](*ints)


def raw_signed(value: int, kind: str) -> int:
    """An integer wrapped around to a type."""
    return int(value_of(value, kind))
