// What a warp does together: sums of its lanes, and runs of equal values among them. CUDA C++, which on_host.h plays.
#pragma once

#include "normal.h"
#include "position.h"

#define SG_WARP static __device__ __forceinline__

namespace SG_NAMESPACE {

constexpr uint32_t ALL_LANES = 0xFFFFFFFF;

SG_WARP int lane_of() { return static_cast<int>(threadIdx.x) & 31; }

// Two sums of ticks together, never beyond a window's where they are bounded: associative, so any order of adding gives
// the same.
template <bool BOUNDED>
SG_WARP int64_t plus_at_most(int64_t a, int64_t b) {
    const uint64_t sum = static_cast<uint64_t>(a) + static_cast<uint64_t>(b);  // of 2**62 and 2**62 as well
    return BOUNDED && sum >> RENEWAL_BITS ? WINDOW_TICKS : static_cast<int64_t>(sum);
}

// Ticks of the lanes up to and with this one.
template <bool BOUNDED>
SG_WARP int64_t sum_of_lanes(int64_t ticks) {
    SG_UNROLL for (int by = 1; by < 32; by *= 2) {
        const int64_t before = __shfl_up_sync(ALL_LANES, ticks, by);
        if (lane_of() >= by) ticks = plus_at_most<BOUNDED>(before, ticks);
    }
    return ticks;
}

SG_WARP uint64_t largest_of_lanes(uint64_t key) {
    SG_UNROLL for (int by = 16; by > 0; by /= 2) {
        const uint64_t other = __shfl_down_sync(ALL_LANES, key, by);
        key = other > key ? other : key;
    }
    return key;
}

// Sets a maximum; keys are above 0 where there is anything to compare.
SG_WARP void raise(uint64_t* peak, uint64_t key) {
    if (key) atomicMax(reinterpret_cast<unsigned long long*>(peak), static_cast<unsigned long long>(key));
}

// The tables of normals in a block's own memory, term by term: lanes that read different rows meet few banks twice.
struct NormalRows {
    static constexpr int SIZE = NORMAL_TERMS * (QUANTILE_ROWS + MASS_ROWS);
    const double* at;
    SG_DEVICE double quantile(int row, int term) const { return at[term * QUANTILE_ROWS + row]; }
    SG_DEVICE double mass(int row, int term) const {
        return at[NORMAL_TERMS * QUANTILE_ROWS + term * MASS_ROWS + row];
    }
};

// Copied by all threads of a block into its memory.
SG_WARP NormalRows normal_rows(double* to) {
    for (int i = static_cast<int>(threadIdx.x); i < NORMAL_TERMS * QUANTILE_ROWS; i += static_cast<int>(blockDim.x))
        to[i % NORMAL_TERMS * QUANTILE_ROWS + i / NORMAL_TERMS] = QUANTILE[i];
    for (int i = static_cast<int>(threadIdx.x); i < NORMAL_TERMS * MASS_ROWS; i += static_cast<int>(blockDim.x))
        to[NORMAL_TERMS * QUANTILE_ROWS + i % NORMAL_TERMS * MASS_ROWS + i / NORMAL_TERMS] = MASS[i];
    __syncthreads();
    return {to};
}

// Lanes that follow one another with the same value.
struct Run {
    int first;    // lane
    int length;   // of it
    bool is_first;
};

SG_WARP Run run_of_lanes(uint32_t value) {
    const int lane = lane_of();
    const uint32_t before = __shfl_up_sync(ALL_LANES, value, 1);
    const uint32_t firsts = __ballot_sync(ALL_LANES, lane == 0 || before != value);
    const uint32_t up_to_here = firsts & (ALL_LANES >> (31 - lane));
    const int first = 31 - __clz(up_to_here);
    const uint32_t later = lane == 31 ? 0 : firsts >> (lane + 1);
    const int end = later ? lane + __ffs(later) : 32;
    return {first, end - first, first == lane};
}

}  // namespace SG_NAMESPACE
