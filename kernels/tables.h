// Equals law/tables.py: the bin whose words contain a word, by guide table and integer comparison.
#pragma once

#include "lane.h"

namespace SG_NAMESPACE {

struct Tables {
    const uint32_t* thresholds;
    const int32_t* values;
    const int32_t* guide;
    int32_t guide_bits;
};

// Entry of the guide where a word's search begins; the next entry is where it ends at the latest.
SG_DEVICE int32_t guide_at(uint32_t word, int32_t table, const Tables& tables) {
    return table * ((1 << tables.guide_bits) + 1) + static_cast<int32_t>(word >> (32 - tables.guide_bits));
}

// One bin on, unless the bin has the word. The threshold of the last bin of a search is never below the word.
SG_DEVICE int32_t next_bin(uint32_t word, int32_t bin, const Tables& tables) {
    return bin + (tables.thresholds[bin] < word ? 1 : 0);
}

// The search among bins low .. high by halving.
SG_DEVICE int32_t halve_bins(uint32_t word, int32_t low, int32_t high, const Tables& tables) {
    while (low < high) {
        const int32_t middle = low + ((high - low) >> 1);
        const bool right = tables.thresholds[middle] < word;
        low = right ? middle + 1 : low;
        high = right ? high : middle;
    }
    return low;
}

SG_DEVICE int64_t find_bin(uint32_t word, int64_t table, const Tables& tables) {
    const int32_t at = guide_at(word, static_cast<int32_t>(table), tables);
    return halve_bins(word, tables.guide[at], tables.guide[at + 1], tables);
}

}  // namespace SG_NAMESPACE
