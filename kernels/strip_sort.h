// Records of a bin of time into sorted rows.
#pragma once

#include "strip.h"

namespace SG_NAMESPACE {

constexpr int MAX_DIGIT_BITS = 12;

// Sorts words by their upper half, keeping the order of equals; the sorted words are in the returned one of the two.
static uint64_t* sort_words(uint64_t* words, uint64_t* spare, int64_t n, int key_bits) {
    if (n < 48) {
        for (int64_t i = 1; i < n; ++i) {
            const uint64_t word = words[i];
            int64_t j = i;
            for (; j > 0 && words[j - 1] > word; --j) words[j] = words[j - 1];
            words[j] = word;
        }
        return words;
    }
    const int passes = (key_bits + MAX_DIGIT_BITS - 1) / MAX_DIGIT_BITS;
    if (passes == 0) return words;
    const int bits = (key_bits + passes - 1) / passes;
    const uint32_t mask = (1u << bits) - 1;
    uint32_t start[3][1 << MAX_DIGIT_BITS];
    for (int p = 0; p < passes; ++p) memset(start[p], 0, sizeof(uint32_t) << bits);
    for (int64_t i = 0; i < n; ++i) {
        const uint64_t key = words[i] >> 32;
        for (int p = 0; p < passes; ++p) ++start[p][key >> (p * bits) & mask];
    }
    for (int p = 0; p < passes; ++p) {
        uint32_t* next = start[p];
        uint32_t sum = 0;
        for (uint32_t digit = 0; digit <= mask; ++digit) {
            const uint32_t count = next[digit];
            next[digit] = sum;
            sum += count;
        }
        const int shift = 32 + p * bits;
        for (int64_t i = 0; i < n; ++i) {
            const uint64_t word = words[i];
            spare[next[word >> shift & mask]++] = word;
        }
        uint64_t* swap = words;
        words = spare;
        spare = swap;
    }
    return words;
}

template <int FIELDS, bool ORDINAL>
static void gather(Width<FIELDS, ORDINAL>, const SgJob& job, const uint32_t* records, const uint64_t* sorted, int64_t count,
                   const SgRows& rows) {
    const uint32_t known = static_cast<uint32_t>(count - rows.due_count);
    constexpr int WORDS_EACH = Width<FIELDS, ORDINAL>::WORDS;
    const int64_t base = rows.base_us;
    int64_t* arrival_us = rows.arrival_us;
    int32_t *client = rows.client, *field[FIELDS];
    for (int f = 0; f < FIELDS; ++f) field[f] = rows.field[f];
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t at = static_cast<uint32_t>(sorted[i]);
        const uint32_t* record = records + (at < known ? uint64_t{at} : 0) * WORDS_EACH;
        arrival_us[i] = base + record[0];
        client[i] = job.client_column[record[1]];
        for (int f = 0; f < FIELDS; ++f) field[f][i] = static_cast<int32_t>(record[2 + f]);
        if (ORDINAL) {
            rows.cell[i] = static_cast<int32_t>(record[1]);
            rows.ordinal[i] = record[2 + FIELDS];
        }
    }
}

static void columns(const SgJob& job, const SgFields& fields, const SgBins& bins, int64_t begin, int64_t count,
                    const SgRows& rows, uint64_t* scratch) {
    const int64_t words = fields.words;
    const uint32_t* records = bins.records + begin * words;
    for (int64_t i = 0; i < count; ++i) scratch[i] = static_cast<uint64_t>(records[i * words]) << 32 | i;
    const int64_t known = count;
    for (int64_t i = 0; i < rows.due_count; ++i, ++count)
        scratch[count] = static_cast<uint64_t>(rows.due[i].arrival_us - rows.base_us) << 32 | count;
    const uint64_t* sorted = sort_words(scratch, scratch + count, count, bins.shift);
    if (rows.due_count)
        for (int64_t i = 0; i < count; ++i) {
            const int64_t at = static_cast<uint32_t>(sorted[i]);
            if (at >= known) rows.due_place[at - known] = static_cast<uint32_t>(i);
        }
    if (!known) return;
    with_width(fields, [&](auto width) { gather(width, job, records, sorted, count, rows); });
}

}  // namespace SG_NAMESPACE
