// Equals request/schema.py, rules.py and law/dependence.py: what a request is, in numbers; and `reason_tokens` of
// law/tables.py.
#pragma once

#include "lane.h"

namespace SG_NAMESPACE {

constexpr int SCALAR_FIELDS = 5;  // at most, of one request
constexpr int TURN_FIELDS = 3;    // at most, of one without items
constexpr int MODALITIES = 3;
constexpr int INPUT = 0, OUTPUT = 1;  // lanes
constexpr int RATIO_STEPS = 501;

enum CountRule : uint8_t { EXACT = 0, RENEWAL = 1, SERVEGEN = 2 };
enum Dependence : int64_t { INDEPENDENT = 0, COMONOTONE = 1, COPULA = 2 };

SG_DEVICE int32_t reason_tokens(int32_t output, int32_t ratio) {
    const int64_t share = static_cast<int64_t>(output) * ratio;
#if defined(__CUDA_ARCH__)
    return static_cast<int32_t>((2 * share + RATIO_STEPS) / (2 * RATIO_STEPS));
#else
    // a loop of this becomes vectors; the quotient is at least 0.5 / RATIO_STEPS from whole numbers, roundings are below
    return static_cast<int32_t>((small_to_double(share) + 0.5 * RATIO_STEPS) * (1.0 / RATIO_STEPS));
#endif
}

// Words of a record of the CPU driver: low part of a time, cell, fields, and the ordinal where it is wanted.
SG_DEVICE constexpr int record_words(int fields, bool ordinal) { return 2 + fields + (ordinal ? 1 : 0); }

}  // namespace SG_NAMESPACE
