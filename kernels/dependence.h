// Equals law/dependence.py: the Gaussian copula, one field after another.
#pragma once

#include "elementary.h"
#include "variates.h"

namespace SG_NAMESPACE {

// The word of field `field` from the normals of fields 0 .. field; `row` is its row of the mixing matrix. A field that
// depends on no earlier one keeps its word: the caller asks `is_mixed` first.
SG_DEVICE uint32_t mix_word(const double* normals, const double* row, int field) {
    double z = normals[0] * row[0];
    for (int j = 1; j <= field; ++j) z = z + normals[j] * row[j];
    return static_cast<uint32_t>(small_to_int(normal_cdf(z) * 4294967296.0));
}

SG_DEVICE bool is_mixed(const double* row, int field) {
    bool any = false;
    for (int j = 0; j < field; ++j) any |= row[j] != 0.0;
    return any;
}

}  // namespace SG_NAMESPACE
