// Which clients send in a window, and what is drawn once for each: counts, rotations, first arrivals.
#pragma once

#include "position.h"
#include "strip_gaps.h"

namespace SG_NAMESPACE {

static void first_arrivals(const SgGrid& grid, Key key, uint32_t place, const int64_t* law, SgCell* cells, int n) {
    GapStrips strips;
    double first[STRIP];
    for (int i = 0; i < n; ++i) {
        GapStrip& s = strips.by[grid.first_draw[law[i]]];
        s.at.ordinal[s.n] = 0;
        s.at.client[s.n] = static_cast<uint32_t>(grid.client[cells[i].client]);
        s.at.place[s.n] = place_of(place, GAP);
        s.at.detail[s.n] = 0;
        s.d[s.n] = grid.d[law[i]];
        s.c[s.n] = grid.c[law[i]];
        s.log_d[s.n] = grid.log_d[law[i]];
        s.boost[s.n] = grid.boost[law[i]];
        s.to[s.n++] = &first[i];
    }
    strips.finish(key);

    alignas(64) double log_gap[STRIP], log_unit[STRIP], expected[STRIP];
    alignas(64) int64_t ticks[STRIP];
    for (int i = 0; i < n; ++i) {
        log_gap[i] = first[i] * grid.power[law[i]];
        log_unit[i] = grid.log_mean_gap[law[i]];
        expected[i] = to_double(cells[i].expected_q32) * 2.3283064365386963e-10;
    }
    const int whole = whole_lanes(n);
    for (int i = n; i < whole; ++i) log_gap[i] = log_unit[i] = expected[i] = 1.0;
    for (int i = 0; i < whole; ++i)
        ticks[i] = gap_ticks(log_gap[i], log_unit[i] + log(expected[i]), static_cast<double>(WINDOW_TICKS));
    for (int i = 0; i < n; ++i) cells[i].first_ticks = ticks[i];
}

static void counts(const SgGrid& grid, Key key, uint32_t place, SgCell* cells, int n) {
    Addresses at;
    memset(&at, 0, sizeof at);
    for (int i = 0; i < n; ++i) {
        at.client[i] = static_cast<uint32_t>(grid.client[cells[i].client]);
        at.place[i] = place_of(place, COUNT);
    }
    draw_strip(at, n, key);
    for (int i = 0; i < n; ++i) {
        const uint8_t rule = grid.rule[grid.profile[cells[i].client]];
        const int64_t rounding = rule == SERVEGEN ? 0xFFFFFFFF : static_cast<int64_t>(at.w0[i]);
        cells[i].count = rule == RENEWAL ? 0 : (cells[i].expected_q32 + rounding) >> 32;
        cells[i].rotation = rule == RENEWAL ? 0 : at.w1[i];
    }
}

static int64_t cells(const SgGrid& grid, int64_t window, int64_t a, int64_t b, SgCell* out) {
    const Key key = {static_cast<uint32_t>(grid.key0), static_cast<uint32_t>(grid.key1)};
    const uint32_t place = static_cast<uint32_t>(grid.number[window]);
    const double *scale = grid.scale + window, *rate_rps = grid.rate_rps + grid.row[window] * grid.profiles;
    int64_t kept = 0;
    while (a < b) {
        SgCell some[STRIP], first[STRIP];
        int64_t law[STRIP];
        int n = 0, renewals = 0;
        for (; a < b && n < STRIP; ++a) {
            const double own = scale[grid.group ? grid.group[a] * grid.windows : 0];
            const double mean = rate_rps[grid.profile[a]] * grid.rate_factor[a] * own;
            some[n] = {static_cast<int64_t>(mean * 4294967296.0), 0, 0, WINDOW_TICKS, static_cast<int32_t>(a),
                       static_cast<int32_t>(window)};
            n += some[n].expected_q32 > 0;
        }
        for (int i = 0; i < n; ++i) {
            const int64_t profile = grid.profile[some[i].client];
            law[renewals] = profile * grid.laws + grid.law[window];
            first[renewals] = some[i];
            renewals += grid.rule[profile] == RENEWAL;
        }
        if (renewals < n) counts(grid, key, place, some, n);
        if (renewals) first_arrivals(grid, key, place, law, first, renewals);
        for (int i = 0, r = 0; i < n; ++i) {
            const bool renewal = r < renewals && first[r].client == some[i].client;
            const SgCell& cell = renewal ? first[r] : some[i];
            r += renewal;
            if (renewal ? cell.first_ticks < WINDOW_TICKS : cell.count > 0) out[kept++] = cell;
        }
    }
    return kept;
}

}  // namespace SG_NAMESPACE
