// Logarithms of gaps into ticks, their sums, and times inside the window.
#pragma once

#include "position.h"
#include "strip.h"
#include "tables.h"

namespace SG_NAMESPACE {

static void ticks(const SgJob& job, SgSegment* segments, int64_t count) {
    for (int64_t k = 0; k < count; ++k) {
        SgSegment& segment = segments[k];
        const double unit = job.log_unit[segment.cell], per_unit = job.ticks_per_unit[segment.cell];
        const int n = static_cast<int>(segment.count);
        const bool renewal = job.rule[segment.cell] == RENEWAL;
        int64_t sum = 0;
        for (int a = 0; a < n; a += LANES) {
            alignas(64) double gap[LANES];
            alignas(64) int64_t tick[LANES];
            memcpy(gap, segment.data + a, sizeof gap);
            for (int j = 0; j < LANES; ++j) tick[j] = gap_ticks(gap[j], unit, per_unit);
            const int b = n - a < LANES ? n - a : LANES;
            if (renewal) {
                if (a == 0 && segment.first == 0) tick[0] = job.first_ticks[segment.cell];
                for (int j = 0; j < b; ++j) {
                    // once at the window's end it stays there: a tick more would not fit
                    const int64_t left = WINDOW_TICKS - sum;
                    sum += tick[j] < left ? tick[j] : left;
                    segment.data[a + j] = sum;
                }
            } else {
                for (int j = 0; j < b; ++j) segment.data[a + j] = sum += tick[j];
            }
        }
        segment.total = sum;
    }
}

static void to_operational(const SgJob& job, int32_t cell, const int64_t* sum, uint64_t* x, int64_t* inside) {
    switch (job.rule[cell]) {
        case EXACT: {
            const int64_t all = job.ticks_in_all[cell], rotation = job.rotation[cell];
            const double occupancy = job.occupancy[cell];
            for (int j = 0; j < LANES; ++j) x[j] = static_cast<uint64_t>(on_circle(sum[j], all, occupancy, rotation));
            for (int j = 0; j < LANES; ++j) inside[j] = 1;
            break;
        }
        case RENEWAL:
            for (int j = 0; j < LANES; ++j) x[j] = static_cast<uint64_t>(sum[j]) >> (RENEWAL_BITS - 32) & 0xFFFFFFFF;
            for (int j = 0; j < LANES; ++j) inside[j] = sum[j] < WINDOW_TICKS;
            break;
        default: {
            const int64_t all = job.ticks_in_all[cell];
            for (int j = 0; j < LANES; ++j) {
                const FromStart start = from_start(sum[j], all);
                x[j] = static_cast<uint64_t>(start.x);
                inside[j] = start.inside;
            }
        }
    }
}

static void to_clock(const SgJob& job, int32_t cell, const uint64_t* x, int64_t* us) {
    const int64_t table = job.clock_table[cell];
    if (table == 0) {
        const uint64_t window_us = static_cast<uint64_t>(job.window_us);
        for (int j = 0; j < LANES; ++j) us[j] = static_cast<int64_t>(clock_us(x[j], 0, 0, window_us));
        return;
    }
    const Tables tables = {job.clock_thresholds, nullptr, job.clock_guide, static_cast<int32_t>(job.clock_guide_bits)};
    for (int j = 0; j < LANES; ++j) {
        const int64_t s = find_bin(static_cast<uint32_t>(x[j]), table, tables);
        us[j] = static_cast<int64_t>(clock_us(x[j], job.clock_first[s], job.clock_start_us[s], job.clock_slope[s]));
    }
}

// Requests before the first one whose time is below the time before it: a run of requests passes the window's end once.
static uint32_t find_wrap(const uint32_t* times, uint32_t n) {
    for (uint32_t a = 1; a < n; a += 64) {
        const uint32_t b = n - a < 64 ? n : a + 64;
        uint32_t falls = 0;
        for (uint32_t i = a; i < b; ++i) falls |= times[i] < times[i - 1];
        if (!falls) continue;
        for (uint32_t i = a;; ++i)
            if (times[i] < times[i - 1]) return i;
    }
    return n;
}

static void times(const SgJob& job, SgSegment* segments, int64_t count, int shift, uint32_t* histogram) {
    for (int64_t k = 0; k < count; ++k) {
        SgSegment& segment = segments[k];
        const int64_t origin = job.origin_us[segment.cell], before = segment.before;
        const int n = static_cast<int>(segment.count);
        int64_t kept = 0;
        for (int a = 0; a < n; a += LANES) {
            alignas(64) int64_t sum[LANES], us[LANES], inside[LANES];
            alignas(64) uint64_t x[LANES];
            const int b = n - a < LANES ? n - a : LANES;
            memcpy(sum, segment.data + a, sizeof sum);
            // beyond the segment's end anything may be read: its last sum stands in
            for (int j = b; j < LANES; ++j) sum[j] = sum[b - 1];
            for (int j = 0; j < LANES; ++j) sum[j] += before;
            to_operational(job, segment.cell, sum, x, inside);
            to_clock(job, segment.cell, x, us);
            for (int j = 0; j < b; ++j) segment.times[a + j] = static_cast<uint32_t>(us[j]);
            for (int j = 0; j < b; ++j) kept += inside[j];
            for (int j = 0; j < LANES; ++j) us[j] += origin;
            for (int j = 0; j < b; ++j)
                if ((inside[j] != 0) & (us[j] >= 0) & (us[j] < job.span_us)) ++histogram[us[j] >> shift];
        }
        segment.count = static_cast<uint32_t>(kept);
        segment.wrap = find_wrap(segment.times, segment.count);
    }
}

}  // namespace SG_NAMESPACE
