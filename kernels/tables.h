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

SG_DEVICE int64_t find_bin(uint32_t word, int64_t table, const Tables& tables) {
    const int64_t cell = table * ((int64_t{1} << tables.guide_bits) + 1) + (word >> (32 - tables.guide_bits));
    int32_t low = tables.guide[cell];
    if (tables.thresholds[low] >= word) return low;  // most words fall in the first bin that the guide names
    int32_t high = tables.guide[cell + 1];
    ++low;
    while (low < high) {
        const int32_t middle = low + ((high - low) >> 1);
        const bool right = tables.thresholds[middle] < word;
        low = right ? middle + 1 : low;
        high = right ? high : middle;
    }
    return low;
}

}  // namespace SG_NAMESPACE
