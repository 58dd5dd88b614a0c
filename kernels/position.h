// Equals law/position.py: from ticks to operational time, and from there to clock time inside a window.
#pragma once

#include "elementary.h"

namespace SG_NAMESPACE {

constexpr int RENEWAL_BITS = 62;
constexpr int64_t WINDOW_TICKS = int64_t{1} << RENEWAL_BITS;
constexpr double WORDS = 4294967296.0;

SG_DEVICE int32_t tick_bits(int64_t count) {
    const int32_t exponent = static_cast<int32_t>(bits_of(static_cast<double>(count - 1)) >> 52) - 1022;
    return 62 - (count > 1 ? exponent : 0);
}

SG_DEVICE int64_t on_circle(int64_t ticks_before, int64_t ticks_in_all, double occupancy, int64_t rotation) {
    const double share = quotient(to_double(ticks_before), to_double(ticks_in_all));
    return (rotation + small_to_int(share * (occupancy * WORDS))) & 0xFFFFFFFF;
}

struct FromStart {
    int64_t x;
    bool inside;
};

SG_DEVICE FromStart from_start(int64_t ticks_before, int64_t ticks_in_all) {
    const double share = quotient(to_double(ticks_before), to_double(ticks_in_all));
    return {small_to_int(share * WORDS) & 0xFFFFFFFF, share < 1.0};
}

SG_DEVICE uint64_t clock_us(uint64_t x, uint64_t first, uint64_t start_us, uint64_t slope) {
    return start_us + (((x - first) * slope) >> 32);
}

}  // namespace SG_NAMESPACE
