// When and where requests start, without making rows of them.
#pragma once

#include "draw.h"

// One of them; the time is on the slab's axis.
struct Start {
    int64_t us;
    int32_t cell;
    uint32_t ordinal;
};

// In the order of the pieces.
inline std::vector<std::vector<Start>> find_starts(const SgJob& job, const Drawn& drawn) {
    const std::vector<Range> chunks = ranges_of(0, static_cast<int64_t>(drawn.pieces.size()), BLOCK,
                                                [&](int64_t k) { return drawn.pieces[k].count; });
    std::vector<std::vector<Start>> found(chunks.size());
    for_each(static_cast<int64_t>(chunks.size()), std::max<int64_t>(job.threads, 1), job.stop, [&](int64_t c, int64_t) {
        for (int64_t k = chunks[c].begin; k < chunks[c].end; ++k) {
            const auto& piece = drawn.pieces[k];
            for (uint32_t i = 0; i < piece.count; ++i) {
                const int64_t us = piece.origin_us + piece.times[i];
                if (us >= 0 && us < job.span_us) found[c].push_back({us, piece.cell, piece.first + i});
            }
        }
    });
    return found;
}
