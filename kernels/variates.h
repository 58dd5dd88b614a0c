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

// Constants of a Gamma shape, from `gamma_constants` and `equilibrium_constants` of the law.
struct GammaConstants {
    double d, c, log_d, boost;
};

struct LogGamma {
    double log_gap;
    int64_t accepted;  // 1 or 0: a bool would keep GCC from making vectors of this
};

// The attempt from its normal on: `try_log_gamma` in two parts, so that a strip can settle its normals first.
SG_DEVICE LogGamma try_log_gamma_at(double z, Words words, GammaConstants of) {
    const double t = z * of.c + 1.0;
    const double log_v = log(t > 1e-300 ? t : 1e-300) * 3.0;
    const double bound = (1.0 - t * t * t + log_v) * of.d + z * z * 0.5;
    const int64_t accepted = (t > 0.0) & (log(uniform32(words.w1)) < bound);
    return {log_v + of.log_d + log(uniform52(words.w2, words.w3)) * of.boost, accepted};
}

SG_DEVICE LogGamma try_log_gamma(Words words, GammaConstants of) {
    return try_log_gamma_at(normal_of_word(words.w0), words, of);
}

SG_DEVICE int64_t gap_ticks(double log_gap, double log_unit, double ticks_per_unit) {
    const double below = log_gap - log_unit;
    return to_int(exp(below < 0.0 ? below : 0.0) * ticks_per_unit);
}

}  // namespace SG_NAMESPACE
