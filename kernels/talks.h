// Sessions of several turns, found among the times of a slab without making its rows.
#pragma once

#include "draw.h"

// One of them; the time is on the slab's axis.
struct Talk {
    int64_t us;
    int32_t cell;
    uint32_t ordinal;
};

// In the order of the pieces.
inline std::vector<std::vector<Talk>> find_talks(const SgStrips& strips, const SgJob& job, const Drawn& drawn) {
    struct Worker {
        Scratch<int32_t> cell;
        Scratch<uint32_t> ordinal;
        Scratch<uint8_t> several;
    };
    const int64_t threads = std::max<int64_t>(job.threads, 1);
    const std::vector<Range> chunks = ranges_of(0, static_cast<int64_t>(drawn.pieces.size()), BLOCK,
                                                [&](int64_t k) { return drawn.pieces[k].count; });
    std::vector<std::vector<Talk>> found(chunks.size());
    std::vector<Worker> workers(threads);
    for_each(static_cast<int64_t>(chunks.size()), threads, job.stop, [&](int64_t c, int64_t t) {
        int64_t count = 0;
        for (int64_t k = chunks[c].begin; k < chunks[c].end; ++k) count += drawn.pieces[k].count;
        int32_t* cell = workers[t].cell.of(count);
        uint32_t* ordinal = workers[t].ordinal.of(count);
        uint8_t* several = workers[t].several.of(count);
        int64_t n = 0;
        for (int64_t k = chunks[c].begin; k < chunks[c].end; ++k)
            for (uint32_t i = 0; i < drawn.pieces[k].count; ++i, ++n) {
                cell[n] = drawn.pieces[k].cell;
                ordinal[n] = drawn.pieces[k].first + i;
            }
        strips.several(job, count, cell, ordinal, several);
        n = 0;
        for (int64_t k = chunks[c].begin; k < chunks[c].end; ++k)
            for (uint32_t i = 0; i < drawn.pieces[k].count; ++i, ++n) {
                const int64_t us = drawn.pieces[k].origin_us + drawn.pieces[k].times[i];
                if (several[n] && us >= 0 && us < job.span_us) found[c].push_back({us, cell[n], ordinal[n]});
            }
    });
    return found;
}
