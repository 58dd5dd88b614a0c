// Addresses into logarithms of gaps.
#pragma once

#include "strip_normal.h"

namespace SG_NAMESPACE {

// Lanes that wait for a gap by one draw. Rejected lanes stay for the next attempt, and new ones fill up the strip.
struct GapStrip {
    Addresses at;
    alignas(64) double d[FILLED], c[FILLED], log_d[FILLED], boost[FILLED];
    alignas(64) double log_gap[STRIP], accepted[STRIP];
    double* to[FILLED];
    int n;
};

template <uint8_t DRAW>
static void attempt_by(GapStrip& s, Key key) {
    draw_strip(s.at, s.n, key);
    alignas(64) double z[STRIP];
    if (needs_normal(DRAW)) normals_of(s.at.w0, s.n, z);
    const int whole = whole_lanes(s.n);
    for (int i = 0; i < whole; ++i) {
        const Words words = {s.at.w0[i], s.at.w1[i], s.at.w2[i], s.at.w3[i]};
        const GapConstants of = {s.d[i], s.c[i], s.log_d[i], s.boost[i]};
        const LogGap gap = try_log_gap_at(DRAW, needs_normal(DRAW) ? z[i] : 0.0, words, of);
        s.log_gap[i] = gap.log_gap;
        if (may_reject(DRAW)) s.accepted[i] = gap.accepted ? 1.0 : 0.0;
    }
    int left = 0;
    for (int i = 0; i < s.n; ++i) {
        *s.to[i] = s.log_gap[i];
        if (may_reject(DRAW) && s.accepted[i] == 0.0) {
            s.at.ordinal[left] = s.at.ordinal[i];
            s.at.client[left] = s.at.client[i];
            s.at.place[left] = s.at.place[i];
            s.at.detail[left] = s.at.detail[i] + detail_of(0, 1);  // the next try
            s.d[left] = s.d[i];
            s.c[left] = s.c[i];
            s.log_d[left] = s.log_d[i];
            s.boost[left] = s.boost[i];
            s.to[left] = s.to[i];
            ++left;
        }
    }
    s.n = left;
}

static void attempt(uint8_t draw, GapStrip& s, Key key) {
    switch (draw) {
#define SG_ATTEMPT(NAME, CODE) case NAME: return attempt_by<NAME>(s, key);
        SG_DRAWS(SG_ATTEMPT)
#undef SG_ATTEMPT
    }
}

// Strips by code of the draw; of the first codes nobody asks.
struct GapStrips {
    GapStrip by[FAMILY_CODES];

    GapStrips() {
        for (GapStrip& s : by) s.n = 0;
    }

    // Attempts until no lane waits.
    void finish(Key key) {
        for (uint8_t draw = 0; draw < FAMILY_CODES; ++draw)
            for (int tries = 0; by[draw].n && tries < 2 * MAX_ATTEMPTS; ++tries) attempt(draw, by[draw], key);
    }
};

static void gaps(const SgJob& job, SgSegment* segments, int64_t count) {
    const Key key = key_of(job);
    GapStrips strips;
    for (int64_t k = 0; k < count; ++k) {
        const SgSegment& segment = segments[k];
        const int32_t cell = segment.cell;
        const uint8_t draw = job.family[cell];
        GapStrip& s = strips.by[draw];
        const uint32_t client = static_cast<uint32_t>(job.client[cell]);
        const uint32_t place = place_of(static_cast<uint32_t>(job.window[cell]), GAP);
        const double d = job.d[cell], c = job.c[cell], log_d = job.log_d[cell], boost = job.boost[cell];
        double* data = reinterpret_cast<double*>(segment.data);
        uint32_t done = 0;
        while (done < segment.count) {
            const int a = s.n, room = STRIP - a, rest = static_cast<int>(segment.count - done);
            const int n = rest < room ? rest : room;
            const uint32_t first = segment.first + done;
            double* to = data + done;
            fill(s.at.ordinal + a, n, [&](int i) { return first + static_cast<uint32_t>(i); });
            fill(s.at.client + a, n, [&](int) { return client; });
            fill(s.at.place + a, n, [&](int) { return place; });
            fill(s.at.detail + a, n, [&](int) { return 0; });
            fill(s.boost + a, n, [&](int) { return boost; });
            fill(s.to + a, n, [&](int i) { return to + i; });
            if (needs_normal(draw)) {
                fill(s.d + a, n, [&](int) { return d; });
                fill(s.c + a, n, [&](int) { return c; });
                fill(s.log_d + a, n, [&](int) { return log_d; });
            }
            s.n = a + n;
            done += static_cast<uint32_t>(n);
            if (s.n == STRIP) attempt(draw, s, key);
        }
    }
    strips.finish(key);

    for (int64_t k = 0; k < count; ++k) {
        const double* gap = reinterpret_cast<const double*>(segments[k].data);
        const uint32_t n = segments[k].count;
        double best[8];
        for (int j = 0; j < 8; ++j) best[j] = gap[0];
        uint32_t i = 0;
        for (; i + 8 <= n; i += 8)
            for (int j = 0; j < 8; ++j) best[j] = best[j] > gap[i + j] ? best[j] : gap[i + j];
        for (; i < n; ++i) best[0] = best[0] > gap[i] ? best[0] : gap[i];
        double peak = best[0];
        for (int j = 1; j < 8; ++j) peak = peak > best[j] ? peak : best[j];
        segments[k].peak = peak;
    }
}

}  // namespace SG_NAMESPACE
