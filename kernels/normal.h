// Equals law/normal.py: words to standard normals and back, a row of a table for every lane.
#pragma once

#include "elementary.h"
#include "normal_tables.h"

namespace SG_NAMESPACE {

constexpr int QUARTER_BITS = 50, FIRST_QUARTER = 1022 << 2;
constexpr uint32_t HALF = 0x80000000;
constexpr double ROWS_PER_UNIT = 5.0, Z_LIMIT = 6.35;

// The tables as they are written; kernels/warps.h has others.
struct NormalTables {
    SG_DEVICE double quantile(int row, int term) const { return QUANTILE[row * NORMAL_TERMS + term]; }
    SG_DEVICE double mass(int row, int term) const { return MASS[row * NORMAL_TERMS + term]; }
};

template <class Term>
SG_DEVICE double at_row(double t, const Term& term) {
    double total = term(NORMAL_TERMS - 1) * t;
    SG_UNROLL for (int k = NORMAL_TERMS - 2; k > 0; --k) total = (total + term(k)) * t;
    return total + term(0);
}

// Signs are random, so they are bit operations: a branch would be mispredicted half of the time.
template <class Tables = NormalTables>
SG_DEVICE double normal_of_word(uint32_t word, const Tables& tables = {}) {
    const uint32_t upper = word >> 31, folded = word ^ (0 - upper);
    const int64_t bits = bits_of(static_cast<double>(static_cast<int32_t>(folded)) + 0.5);
    const int32_t row = static_cast<int32_t>(bits >> QUARTER_BITS) - FIRST_QUARTER;
    const int64_t place = (bits & ((int64_t{1} << QUARTER_BITS) - 1)) | ONE_BITS;
    const double size = at_row(from_bits(place) - 1.0, [&](int k) { return tables.quantile(row, k); });
    return from_bits(bits_of(size) ^ static_cast<int64_t>(uint64_t{upper ^ 1} << 63));
}

template <class Tables = NormalTables>
SG_DEVICE uint32_t word_of_normal(double z, const Tables& tables = {}) {
    double size = fabs(z);
    size = size < Z_LIMIT ? size : Z_LIMIT;
    const double x = size * ROWS_PER_UNIT, shifted = (x - 0.5) + NEAREST;
    const int32_t row = static_cast<int32_t>(bits_of(shifted));
    const double words = at_row(x - (shifted - NEAREST), [&](int k) { return tables.mass(row, k); });
    const uint32_t between = static_cast<uint32_t>(static_cast<int32_t>(words));
    return HALF + (between ^ (0 - static_cast<uint32_t>(z < 0.0)));
}

}  // namespace SG_NAMESPACE
