"""Logarithm, exponential and the normal distribution, the same bits everywhere.

Mathematical libraries differ in the last bit, and so do vector extensions of one library. These functions use only
operations that IEEE 754 defines exactly (+ − × ÷ √, rounding, and integer work on the bits), in a fixed order and
without branches; a compiler must not contract ``a * b + c`` into one operation.

`normal_quantile` and `normal_cdf` serve the host, and the tables of `normal` go through them: kernels have those.

Errors against exact values, measured in ``tests/test_elementary.py``: `log` up to 2 ulp, `exp` below 1.1 ulp,
`normal_quantile` below 1e-15 relative, `normal_cdf` below 3e-16 absolute. The relative error of `normal_cdf` grows
towards the lower tail, to 3e-9 at -7: nothing to a word of 2**-32, but no tail probability to quote.

Polynomials of `log` and `exp` were fitted at Chebyshev nodes (remainders 5e-18 and 1.4e-17); `normal_quantile` is
Wichura's AS 241 (PPND16, Applied Statistics 37, 1988), `normal_cdf` Hart's algorithm 5666 ("Computer Approximations",
1968) with the coefficients of West ("Better approximations to cumulative normal functions", Wilmott, 2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LN2_HIGH, LN2_LOW = 0.6931471805598903, 5.497923018708371e-14  # k * LN2_HIGH is exact for |k| < 2**11
LOG2_E = 1.4426950408889634
SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
ONE_BITS = 0x3FF0000000000000
EXP_MIN, EXP_MAX = -708.0, 709.0

# (2 atanh(s) - 2 s) / s**3 as a polynomial in s**2
LOG_TERMS = (
    0.666666666666667,
    0.3999999999989889,
    0.28571428626253836,
    0.22222211089379496,
    0.1818289243253687,
    0.15331611722055008,
    0.14617807153417325,
)
# (exp(r) - 1 - r) / r**2 as a polynomial in r
EXP_TERMS = (
    0.5000000000000001,
    0.16666666666666669,
    0.041666666666623824,
    0.008333333333330039,
    0.0013888888917367081,
    0.00019841269863171557,
    2.4801521057868204e-05,
    2.7557268276905696e-06,
    2.7620201591031547e-07,
    2.5100472505694996e-08,
)
QUANTILE_CENTRE = (
    (
        3.3871328727963666080,
        133.14166789178437745,
        1971.5909503065514427,
        13731.693765509461125,
        45921.953931549871457,
        67265.770927008700853,
        33430.575583588128105,
        2509.0809287301226727,
    ),
    (
        1.0,
        42.313330701600911252,
        687.18700749205790830,
        5394.1960214247511077,
        21213.794301586595867,
        39307.895800092710610,
        28729.085735721942674,
        5226.4952788528545610,
    ),
)
QUANTILE_TAIL = (
    (
        1.42343711074968357734,
        4.63033784615654529590,
        5.76949722146069140550,
        3.64784832476320460504,
        1.27045825245236838258,
        0.241780725177450611770,
        0.0227238449892691845833,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187,
        1.67638483018380384940,
        0.689767334985100004550,
        0.148103976427480074590,
        0.0151986665636164571966,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
CDF_TAIL = (
    (
        220.206867912376,
        221.213596169931,
        112.079291497871,
        33.912866078383,
        6.37396220353165,
        0.700383064443688,
        0.0352624965998911,
    ),
    (
        440.413735824752,
        793.826512519948,
        637.333633378831,
        296.564248779674,
        86.7807322029461,
        16.064177579207,
        1.75566716318264,
        0.0883883476483184,
    ),
)
CDF_LIMIT = 7.0
"""`normal_cdf` takes |z| beyond this as this: 1.3e-12 of the mass, far below one word of 2**-32."""


def horner(x: Any, terms: Sequence[Any]) -> Any:
    """The polynomial ``terms[0] + terms[1] * x + …``, evaluated from the highest term down."""
    total = x * terms[-1]
    for term in terms[-2:0:-1]:
        total += term
        total *= x
    total += terms[0]
    return total


def log(xp: Any, x: Any) -> Any:
    """Natural logarithm of positive, finite, normal float64 values."""
    bits = x.view(xp.int64)
    exponent = (bits - SQRT_HALF_BITS) >> 52
    mantissa = (bits - (exponent << 52)).view(xp.float64)  # in [sqrt(1/2), sqrt(2))
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    tail = horner(z, LOG_TERMS)
    tail *= z
    tail *= s
    k = exponent.astype(xp.float64)
    tail += k * LN2_LOW
    tail += s + s
    tail += k * LN2_HIGH
    return tail


def exp(xp: Any, x: Any) -> Any:
    """Exponential of finite float64 values; arguments are clipped to [-708, 709], so 0 and infinity never come out."""
    x = xp.clip(x, EXP_MIN, EXP_MAX)
    k = xp.rint(x * LOG2_E)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    total = horner(r, EXP_TERMS)
    total *= r * r
    total += r
    total += 1.0
    total *= ((k.astype(xp.int64) << 52) + ONE_BITS).view(xp.float64)
    return total


def normal_quantile(xp: Any, u: Any) -> Any:
    """The standard normal value below which a share `u` lies, for 1e-11 < u < 1 - 1e-11."""
    q = u - 0.5
    centre_r = 0.180625 - q * q
    centre = q * horner(centre_r, QUANTILE_CENTRE[0]) / horner(centre_r, QUANTILE_CENTRE[1])
    below = xp.minimum(u, 1.0 - u)
    tail_r = xp.sqrt(-log(xp, below)) - 1.6
    tail = horner(tail_r, QUANTILE_TAIL[0]) / horner(tail_r, QUANTILE_TAIL[1])
    return xp.where(xp.abs(q) <= 0.425, centre, xp.copysign(tail, q))


def normal_cdf(xp: Any, z: Any) -> Any:
    """Share of the standard normal distribution below `z`, clipped to |z| <= 7."""
    size = xp.minimum(xp.abs(z), CDF_LIMIT)
    tail = exp(xp, size * size * -0.5) * (horner(size, CDF_TAIL[0]) / horner(size, CDF_TAIL[1]))
    return xp.where(z > 0.0, 1.0 - tail, tail)
