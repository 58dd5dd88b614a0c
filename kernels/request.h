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
    const uint64_t twice = 2 * static_cast<uint64_t>(output) * static_cast<uint64_t>(ratio);
    return static_cast<int32_t>((twice + RATIO_STEPS) / (2 * RATIO_STEPS));
}

// Words of a record of the CPU driver: low part of a time, cell, fields, and the ordinal where it is wanted.
SG_DEVICE constexpr int record_words(int fields, bool ordinal) { return 2 + fields + (ordinal ? 1 : 0); }

}  // namespace SG_NAMESPACE
