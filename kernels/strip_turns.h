// Which sessions have several turns (servegen_gpu/conversations/draw.py has the rest).
#pragma once

#include "strip.h"

namespace SG_NAMESPACE {

static void several(const SgJob& job, int64_t count, const int32_t* cell, const uint32_t* ordinal, uint8_t* out) {
    const Key key = key_of(job);
    Addresses at;
    memset(at.detail, 0, sizeof at.detail);
    for (int64_t a = 0; a < count; a += STRIP) {
        const int n = count - a < STRIP ? static_cast<int>(count - a) : STRIP;
        const int whole = whole_lanes(n);
        int64_t last[STRIP];
        for (int i = 0; i < whole; ++i) {
            const int64_t j = a + (i < n ? i : 0);
            at.ordinal[i] = ordinal[j];
            at.client[i] = static_cast<uint32_t>(job.client[cell[j]]);
            at.place[i] = place_of(static_cast<uint32_t>(job.window[cell[j]]), TURN);
            last[i] = job.last_single[cell[j]];
        }
        draw_strip(at, n, key);
        for (int i = 0; i < n; ++i) out[a + i] = int64_t{at.w0[i]} > last[i];
    }
}

}  // namespace SG_NAMESPACE
