// Equals law/variates.py: from words to the logarithms of gaps, and from those to whole ticks.
#pragma once

#include "normal.h"
#include "philox.h"

namespace SG_NAMESPACE {

SG_DEVICE double uniform32(uint32_t word) { return (small_to_double(word) + 0.5) * 2.3283064365386963e-10; }

SG_DEVICE double uniform52(uint32_t high, uint32_t low) {
    const int64_t k = static_cast<int64_t>(high) << 20 | low >> 12;
    return (small_to_double(k) + 0.5) * 2.220446049250313e-16;
}

SG_DEVICE double log_weibull(Words words, double inverse_shape) {
    return log(-log(uniform52(words.w0, words.w1))) * inverse_shape;
}

// Families whose draws there are, by code: as in request/families.py.
#define SG_DRAWS(X) X(GAMMA, 2) X(WEIBULL, 3) X(LOGNORMAL, 4)

enum Family : uint8_t {
#define SG_CODE(NAME, CODE) NAME = CODE,
    SG_DRAWS(SG_CODE)
#undef SG_CODE
    FAMILY_CODES  // all codes are below
};

// Word 0 is a normal in these draws, which need all constants; the others need `boost` alone.
SG_DEVICE constexpr bool needs_normal(uint8_t draw) { return draw != WEIBULL; }
SG_DEVICE constexpr bool may_reject(uint8_t draw) { return draw == GAMMA; }

// Draw of the first gap of a stationary process.
SG_DEVICE uint8_t first_draw(uint8_t family) { return family == WEIBULL ? uint8_t{GAMMA} : family; }

struct GapConstants {
    double d, c, log_d, boost;
};

SG_DEVICE GapConstants gap_constants(uint8_t family, double shape) {
    const bool below_one = shape < 1.0;
    const double d = (below_one ? shape + 1.0 : shape) - 1.0 / 3.0;
    if (family == LOGNORMAL) return {d, shape, 0.0, 0.0};
    return {d, 1.0 / sqrt(d * 9.0), log(d), (family == GAMMA) & !below_one ? 0.0 : 1.0 / shape};
}

struct FirstGap {
    GapConstants of;
    double power;  // multiplies the logarithm
};

SG_DEVICE FirstGap equilibrium_constants(uint8_t family, double shape) {
    const double d = (family == GAMMA ? shape + 1.0 : 1.0 + 1.0 / shape) - 1.0 / 3.0;
    if (family == LOGNORMAL) return {{d, shape, shape * shape, 1.0}, 1.0};
    const double boost = family == GAMMA ? 1.0 : shape;
    return {{d, 1.0 / sqrt(d * 9.0), log(d), boost}, 1.0 / boost};
}

SG_DEVICE double dispersion(uint8_t family, double shape) {
    return family == LOGNORMAL ? exp(shape * shape) - 1.0 : 1.0 / shape;
}

struct LogGap {
    double log_gap;
    int64_t accepted;  // 1 or 0: a bool would keep GCC from making vectors of this
};

SG_DEVICE LogGap try_log_gamma(double z, Words words, GapConstants of) {
    const double t = z * of.c + 1.0;
    const double log_v = log(t > 1e-300 ? t : 1e-300) * 3.0;
    const double bound = (1.0 - t * t * t + log_v) * of.d + z * z * 0.5;
    const int64_t accepted = (t > 0.0) & (log(uniform32(words.w1)) < bound);
    return {log_v + of.log_d + log(uniform52(words.w2, words.w3)) * of.boost, accepted};
}

SG_DEVICE LogGap log_lognormal(double z, Words words, GapConstants of) {
    return {z * of.c + of.log_d + log(uniform52(words.w2, words.w3)) * of.boost, 1};
}

// The attempt from its normal on, so that a strip can settle its normals first.
SG_DEVICE LogGap try_log_gap_at(uint8_t draw, double z, Words words, GapConstants of) {
    switch (draw) {
        case GAMMA: return try_log_gamma(z, words, of);
        case LOGNORMAL: return log_lognormal(z, words, of);
        default: return {log_weibull(words, of.boost), 1};
    }
}

template <class Tables = NormalTables>
SG_DEVICE LogGap try_log_gap(uint8_t draw, Words words, GapConstants of, const Tables& tables = {}) {
    return try_log_gap_at(draw, needs_normal(draw) ? normal_of_word(words.w0, tables) : 0.0, words, of);
}

SG_DEVICE int64_t gap_ticks(double log_gap, double log_unit, double ticks_per_unit) {
    const double below = log_gap - log_unit;
#if defined(__CUDA_ARCH__)
    // the same bounds by the upper word, in integers: of what is below EXP_MIN no tick is left
    const int64_t bits = bits_of(below), least = bits_of(EXP_MIN);
    const bool tiny = static_cast<uint32_t>(bits >> 32) >= static_cast<uint32_t>(least >> 32);
    return to_int(exp_inside(from_bits(bits >= 0 ? 0 : tiny ? least : bits)) * ticks_per_unit);
#else
    return to_int(exp(below < 0.0 ? below : 0.0) * ticks_per_unit);
#endif
}

}  // namespace SG_NAMESPACE
