// Logarithms of gaps into ticks, their sums, and times inside the window.
#pragma once

#include "position.h"
#include "strip.h"
#include "tables.h"

namespace SG_NAMESPACE {

static void ticks(const SgJob& job, SgSegment* segments, int64_t count) {
    alignas(64) int64_t tick[STRIP];
    for (int64_t k = 0; k < count; ++k) {
        SgSegment& segment = segments[k];
        const double unit = job.log_unit[segment.cell], per_unit = job.ticks_per_unit[segment.cell];
        const int n = static_cast<int>(segment.count);
        const bool renewal = job.rule[segment.cell] == RENEWAL;
        int64_t sum = 0;
        for (int a = 0; a < n; a += STRIP) {
            const int b = n - a < STRIP ? n - a : STRIP, whole = whole_lanes(b);
            int64_t* data = segment.data + a;
            const double* gap = reinterpret_cast<const double*>(data);
            for (int j = 0; j < whole; ++j) tick[j] = gap_ticks(gap[j], unit, per_unit);
            if (renewal) {
                if (a == 0 && segment.first == 0) tick[0] = job.first_ticks[segment.cell];
                for (int j = 0; j < b; ++j) {
                    // once at the window's end it stays there: a tick more would not fit
                    const int64_t left = WINDOW_TICKS - sum;
                    data[j] = sum += tick[j] < left ? tick[j] : left;
                }
            } else {
                for (int j = 0; j < b; ++j) data[j] = sum += tick[j];
            }
        }
        segment.total = sum;
    }
}

// Times of requests by the words of their operational time, and whether they are inside the window.
struct TimeStrip {
    alignas(64) int64_t sum[STRIP], us[STRIP], inside[STRIP];
    alignas(64) uint64_t x[STRIP];
    alignas(64) uint32_t bin[STRIP];
};

static void to_operational(const SgJob& job, int32_t cell, TimeStrip& s, int n) {
    switch (job.rule[cell]) {
        case EXACT: {
            const int64_t all = job.ticks_in_all[cell], rotation = job.rotation[cell];
            const double occupancy = job.occupancy[cell];
            for (int j = 0; j < n; ++j) s.x[j] = static_cast<uint64_t>(on_circle(s.sum[j], all, occupancy, rotation));
            for (int j = 0; j < n; ++j) s.inside[j] = 1;
            break;
        }
        case RENEWAL:
            for (int j = 0; j < n; ++j) s.x[j] = static_cast<uint64_t>(s.sum[j]) >> (RENEWAL_BITS - 32) & 0xFFFFFFFF;
            for (int j = 0; j < n; ++j) s.inside[j] = s.sum[j] < WINDOW_TICKS;
            break;
        default: {
            const int64_t all = job.ticks_in_all[cell];
            for (int j = 0; j < n; ++j) {
                const FromStart start = from_start(s.sum[j], all);
                s.x[j] = static_cast<uint64_t>(start.x);
                s.inside[j] = start.inside;
            }
        }
    }
}

static void to_clock(const SgJob& job, int32_t cell, TimeStrip& s, int n) {
    const int64_t table = job.clock_table[cell];
    if (table == 0) {
        const uint64_t window_us = static_cast<uint64_t>(job.window_us);
        for (int j = 0; j < n; ++j) s.us[j] = static_cast<int64_t>(clock_us(s.x[j], 0, 0, window_us));
        return;
    }
    const Tables tables = {job.clock_thresholds, nullptr, job.clock_guide, static_cast<int32_t>(job.clock_guide_bits)};
    for (int j = 0; j < n; ++j) {
        const int64_t at = find_bin(static_cast<uint32_t>(s.x[j]), table, tables);
        s.us[j] = static_cast<int64_t>(clock_us(s.x[j], job.clock_first[at], job.clock_start_us[at], job.clock_slope[at]));
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
    const uint64_t span = static_cast<uint64_t>(job.span_us);
    const uint32_t none = span ? static_cast<uint32_t>((span - 1) >> shift) + 1 : 1;  // the bin of what lies outside
    TimeStrip s;
    for (int64_t k = 0; k < count; ++k) {
        SgSegment& segment = segments[k];
        const int64_t origin = job.origin_us[segment.cell], before = segment.before;
        const int n = static_cast<int>(segment.count);
        int64_t kept = 0;
        for (int a = 0; a < n; a += STRIP) {
            const int b = n - a < STRIP ? n - a : STRIP, whole = whole_lanes(b);
            memcpy(s.sum, segment.data + a, whole * sizeof(int64_t));
            // beyond the segment's end anything may be read: its last sum stands in
            for (int j = b; j < whole; ++j) s.sum[j] = s.sum[b - 1];
            for (int j = 0; j < whole; ++j) s.sum[j] += before;
            to_operational(job, segment.cell, s, whole);
            to_clock(job, segment.cell, s, whole);
            for (int j = 0; j < b; ++j) segment.times[a + j] = static_cast<uint32_t>(s.us[j]);
            for (int j = 0; j < b; ++j) kept += s.inside[j];
            for (int j = 0; j < whole; ++j) {
                const uint64_t at = static_cast<uint64_t>(s.us[j] + origin), bin = at >> shift;
                s.bin[j] = static_cast<uint32_t>((s.inside[j] != 0) & (at < span) ? bin : none);
            }
            for (int j = 0; j < b; ++j) ++histogram[s.bin[j]];
        }
        segment.count = static_cast<uint32_t>(kept);
        segment.wrap = find_wrap(segment.times, segment.count);
    }
}

}  // namespace SG_NAMESPACE
