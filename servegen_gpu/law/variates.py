"""From words to inter-arrival times, in logarithms.

Shapes go down to 0.0067 and CVs above 1,000, so gaps are drawn as logarithms: a linear gap would underflow.

=====  ==================================================================================
u      a uniform: ``(w + 1/2) / 2**32`` from one word, ``(k + 1/2) / 2**52`` from two
E      an exponential, ``-log u``
k      shape of the gap family
l      logarithm of a gap; its scale is free, the mean follows from the rate
=====  ==================================================================================

Weibull(k): ``l = log(E) / k``; the exponential family is Weibull(1). Gamma(k): Marsaglia and Tsang, "A simple method
for generating gamma variables", ACM TOMS 26 (2000), with d = k' − 1/3, c = 1/√(9d), where k' = k for k ≥ 1 and k + 1
below; there the boost Gamma(k) = Gamma(k + 1) · u^(1/k) of the same paper brings it back. Log-normal: with a normal z,
``l = sigma z + mu``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from servegen_gpu.law.elementary import exp, log
from servegen_gpu.law.normal import normal_of_word
from servegen_gpu.law.philox import Words
from servegen_gpu.request.families import GAMMA, LOGNORMAL, WEIBULL


def uniform32(xp: Any, word: Any) -> Any:
    """A uniform from one word: never 0, never 1, exact."""
    return (word.astype(xp.float64) + 0.5) * 2.0**-32


def uniform52(xp: Any, high: Any, low: Any) -> Any:
    """A uniform from all of one word and the upper 20 bits of another: never 0, never 1, exact."""
    k = (high << xp.uint64(20)) | (low >> xp.uint64(12))
    return (k.astype(xp.float64) + 0.5) * 2.0**-52


def log_weibull(xp: Any, words: Words, inverse_shape: Any) -> Any:
    """Logarithm of a Weibull gap of scale 1 from words 0 and 1."""
    return log(xp, -log(xp, uniform52(xp, words[0], words[1]))) * inverse_shape


@dataclass(frozen=True)
class GapConstants:
    """What the draw of a family needs of a shape (all float64, of the shape's own axes).

    Attributes
    ----------
    d, c, log_d
        Of a Gamma draw, as in the module's notation. Of a log-normal one, c is sigma and log_d is mu.
    boost
        Of a Weibull draw: 1/k. Of the others it multiplies the logarithm of a uniform: 1/k of a Gamma with k < 1, 1 of
        what is left of a log-normal gap, else 0.
    """

    d: Any
    c: Any
    log_d: Any
    boost: Any

    def take(self, index: Any) -> GapConstants:
        """The constants at `index`."""
        return GapConstants(self.d[index], self.c[index], self.log_d[index], self.boost[index])


def gap_constants(xp: Any, family: Any, shape: Any) -> GapConstants:
    """Constants of gaps.

    Parameters
    ----------
    family : uint8
        Code of a draw (`GapFamily.draw`).
    shape : float64
        Positive.
    """
    below_one = shape < 1.0
    d = xp.where(below_one, shape + 1.0, shape) - 1.0 / 3.0
    inverse = 1.0 / shape
    normal = family == LOGNORMAL
    boost = xp.where(normal | ((family == GAMMA) & ~below_one), 0.0, inverse)
    c = xp.where(normal, shape, 1.0 / xp.sqrt(d * 9.0))
    return GapConstants(d, c, xp.where(normal, 0.0, log(xp, d)), boost)


def equilibrium_constants(xp: Any, family: Any, shape: Any) -> tuple[GapConstants, Any]:
    """Constants of the first gap of a stationary renewal process: what is left of a length-biased gap.

    A length-biased Gamma(k) gap is Gamma(k + 1); a length-biased Weibull(k) gap is G^(1/k) with G ~ Gamma(1 + 1/k);
    a length-biased log-normal gap has the mean sigma**2 of its logarithm. The time left is that gap times a uniform,
    drawn here as the boost.

    Parameters
    ----------
    family : uint8
        Code of a draw.
    shape : float64

    Returns
    -------
    constants : GapConstants
        Of the family's first draw (`FIRST_DRAWS`).
    power : float64
        Multiplies the logarithm that comes of it.
    """
    is_gamma = family == GAMMA
    biased = xp.where(is_gamma, shape + 1.0, 1.0 + 1.0 / shape)
    d = biased - 1.0 / 3.0
    normal = family == LOGNORMAL
    boost = xp.where(is_gamma | normal, 1.0, shape)
    c, log_d = 1.0 / xp.sqrt(d * 9.0), log(xp, d)
    of = GapConstants(d, xp.where(normal, shape, c), xp.where(normal, shape * shape, log_d), boost)
    return of, 1.0 / boost


def dispersion(xp: Any, family: Any, shape: Any) -> Any:
    """About the squared CV of a gap: how much more than its mean a renewal count may be; only speed depends on it."""
    return xp.where(family == LOGNORMAL, exp(xp, shape * shape) - 1.0, 1.0 / shape)


def try_log_gap(xp: Any, draw: int, words: Words, of: GapConstants) -> tuple[Any, Any]:
    """One attempt at the logarithm of a gap of scale 1.

    Parameters
    ----------
    draw : int
        Code of the draw.
    words : 4 of uint64[n]
    of : GapConstants

    Returns
    -------
    log_gap : float64[n]
        Meaningful where accepted.
    accepted : bool[n] or None
        None if this draw rejects nothing.
    """
    if draw == GAMMA:
        return try_log_gamma(xp, words, of)
    if draw == LOGNORMAL:
        return log_lognormal(xp, words, of), None
    assert draw == WEIBULL
    return log_weibull(xp, words, of.boost), None


def try_log_gamma(xp: Any, words: Words, of: GapConstants) -> tuple[Any, Any]:
    """One attempt at the logarithm of a Gamma gap of scale 1.

    Word 0 gives the normal, word 1 the acceptance, words 2 and 3 the boost.

    Returns
    -------
    log_gap : float64
        Meaningful where accepted.
    accepted : bool
        True for at least 95 % of attempts at any shape.
    """
    z = normal_of_word(xp, words[0])
    t = z * of.c + 1.0
    log_v = log(xp, xp.maximum(t, 1e-300)) * 3.0
    bound = (1.0 - t * t * t + log_v) * of.d + z * z * 0.5
    accepted = (t > 0.0) & (log(xp, uniform32(xp, words[1])) < bound)
    log_gap = log_v + of.log_d + log(xp, uniform52(xp, words[2], words[3])) * of.boost
    return log_gap, accepted


def log_lognormal(xp: Any, words: Words, of: GapConstants) -> Any:
    """Logarithm of a log-normal gap: word 0 gives the normal, words 2 and 3 the boost."""
    return normal_of_word(xp, words[0]) * of.c + of.log_d + log(xp, uniform52(xp, words[2], words[3])) * of.boost


def gap_ticks(xp: Any, log_gap: Any, log_unit: Any, ticks_per_unit: Any) -> Any:
    """A gap as a whole number of ticks, int64, rounded down; gaps above the unit count as the unit.

    Parameters
    ----------
    log_gap, log_unit : float64
        Logarithms of the gap and of the unit that `ticks_per_unit` ticks make.
    ticks_per_unit : float64
        A power of two, at most 2**62.
    """
    return (exp(xp, xp.minimum(log_gap - log_unit, 0.0)) * ticks_per_unit).astype(xp.int64)
