// Which clients send in some windows, window by window.
#pragma once

#include "host.h"
#include "job.h"

using Cells = std::vector<std::vector<SgCell>>;

inline Cells find_cells(const SgStrips& strips, const SgGrid& grid) {
    constexpr int64_t BLOCK_CLIENTS = 4096;
    const int64_t blocks = (grid.clients + BLOCK_CLIENTS - 1) / BLOCK_CLIENTS;
    Cells found(grid.windows * blocks);
    std::vector<Scratch<SgCell>> scratch(std::max<int64_t>(grid.threads, 1));
    for_each(grid.windows * blocks, grid.threads, grid.stop, [&](int64_t k, int64_t t) {
        const int64_t a = k % blocks * BLOCK_CLIENTS, b = std::min(a + BLOCK_CLIENTS, grid.clients);
        SgCell* cells = scratch[t].of(BLOCK_CLIENTS);
        found[k].assign(cells, cells + strips.cells(grid, k / blocks, a, b, cells));
    });
    return found;
}
