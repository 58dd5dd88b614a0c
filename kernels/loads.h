// Requests and tokens by bin of time, straight from the times of requests: no records, no sort, no columns.
#pragma once

#include "draw.h"

constexpr int64_t REQUESTS_PER_PART = 1 << 16;

// Adds what was drawn to the sums of `loads`. Which fields are drawn is for `fields` to say: those that others of them
// depend on are among them.
inline void add_loads(const SgStrips& strips, const SgJob& job, const Drawn& drawn, const SgFields& fields,
                      const SgLoads& loads) {
    const int64_t pieces = static_cast<int64_t>(drawn.pieces.size()), sums = loads.bins + 1;
    const std::vector<Range> parts =
        ranges_of(0, pieces, REQUESTS_PER_PART, [&](int64_t k) { return drawn.pieces[k].count; });
    const int64_t threads = std::min<int64_t>(std::max<int64_t>(job.threads, 1), static_cast<int64_t>(parts.size()));
    std::vector<SgLoads> of_thread(std::max<int64_t>(threads, 1), loads);
    std::vector<std::vector<int64_t>> memory(of_thread.size());  // of all threads but the first
    for (size_t t = 1; t < of_thread.size(); ++t) {
        memory[t].assign((1 + fields.count) * sums, 0);
        if (loads.requests) of_thread[t].requests = memory[t].data();
        for (int64_t k = 0; k < fields.count; ++k)
            if (loads.field[fields.lane[k]]) of_thread[t].field[fields.lane[k]] = memory[t].data() + (1 + k) * sums;
    }
    for_each(static_cast<int64_t>(parts.size()), threads, job.stop, [&](int64_t p, int64_t t) {
        std::vector<SgRun> runs;
        for (int64_t k = parts[p].begin; k < parts[p].end; ++k) {
            const Piece& piece = drawn.pieces[k];
            const uint32_t* end = up_to(piece.times, piece.times + piece.count, job.span_us - piece.origin_us);
            const uint32_t* begin = up_to(piece.times, end, -piece.origin_us);
            const uint32_t before = static_cast<uint32_t>(begin - piece.times);
            if (begin < end)
                runs.push_back({begin, piece.origin_us, piece.first + before, static_cast<uint32_t>(end - begin), piece.cell});
        }
        strips.loads(job, fields, runs.data(), static_cast<int64_t>(runs.size()), of_thread[t]);
    });
    for (size_t t = 1; t < of_thread.size(); ++t) {
        for (int64_t i = 0; loads.requests && i < sums; ++i) loads.requests[i] += of_thread[t].requests[i];
        for (int f = 0; f < SG_MAX_FIELDS; ++f)
            for (int64_t i = 0; loads.field[f] && i < sums; ++i) loads.field[f][i] += of_thread[t].field[f][i];
    }
}
