// Digests of rows, as servegen_gpu/digest.py defines them; all integers, so the sums may be taken in any order.
#pragma once

#include "job.h"
#include "lane.h"

namespace SG_NAMESPACE {

constexpr int64_t DIGEST_ROWS = 512;  // at once: their words stay in the first cache
constexpr int DIGEST_LANES = 16;

SG_DEVICE uint64_t digest_final(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

template <class T>
static void digest_numbers(const T* values, uint64_t a, int64_t rows, uint64_t* words) {
    for (int64_t i = 0; i < rows; ++i) words[i] += a * static_cast<uint64_t>(static_cast<int64_t>(values[i]));
}

template <class T>
static void digest_lists(const T* values, const int64_t* offsets, const uint64_t* w, int64_t rows, uint64_t* words) {
    for (int64_t i = 0; i < rows; ++i) {
        const T* items = values + offsets[i];
        const int64_t count = offsets[i + 1] - offsets[i];
        uint64_t sum = static_cast<uint64_t>(count) * w[4];
        for (int64_t j = 0; j < count; ++j)
            sum += digest_final(w[2] * static_cast<uint64_t>(static_cast<int64_t>(items[j])) +
                                w[3] * static_cast<uint64_t>(j + 1));
        words[i] += w[0] * sum;
    }
}

static void digest_column(const SgDigested& column, int64_t begin, int64_t rows, uint64_t* words) {
    const auto* wide = static_cast<const int64_t*>(column.values);
    const auto* narrow = static_cast<const int32_t*>(column.values);
    if (column.offsets) {
        if (column.wide) digest_lists(wide, column.offsets + begin, column.words, rows, words);
        else digest_lists(narrow, column.offsets + begin, column.words, rows, words);
    } else if (column.wide) {
        digest_numbers(wide + begin, column.words[0], rows, words);
    } else {
        digest_numbers(narrow + begin, column.words[0], rows, words);
    }
}

// Total and weighted sum of the rows of some columns.
static void digest(const SgDigested* columns, int64_t count, int64_t rows, uint64_t* out) {
    uint64_t words[DIGEST_ROWS], base = 0, total = 0, weighted = 0;
    for (int64_t c = 0; c < count; ++c) base += columns[c].words[1];
    for (int64_t begin = 0; begin < rows; begin += DIGEST_ROWS) {
        const int64_t n = rows - begin < DIGEST_ROWS ? rows - begin : DIGEST_ROWS;
        for (int64_t i = 0; i < n; ++i) words[i] = base;
        for (int64_t c = 0; c < count; ++c) digest_column(columns[c], begin, n, words);
        for (int64_t i = 0; i < n; ++i) words[i] = digest_final(words[i]);
        for (int64_t i = n; i < DIGEST_ROWS; ++i) words[i] = 0;  // adds nothing
        // In step j of J a lane adds its sum so far, which counts its word of that step J - j times.
        constexpr uint64_t STEPS = DIGEST_ROWS / DIGEST_LANES;
        uint64_t sum[DIGEST_LANES] = {}, sums[DIGEST_LANES] = {};
        for (int64_t i = 0; i < DIGEST_ROWS; i += DIGEST_LANES)
            for (int l = 0; l < DIGEST_LANES; ++l) {
                sum[l] += words[i + l];
                sums[l] += sum[l];
            }
        for (uint64_t l = 0; l < DIGEST_LANES; ++l) {
            total += sum[l];
            weighted += (begin + STEPS * DIGEST_LANES + l + 1) * sum[l] - DIGEST_LANES * sums[l];
        }
    }
    out[0] = total;
    out[1] = weighted;
}

}  // namespace SG_NAMESPACE
