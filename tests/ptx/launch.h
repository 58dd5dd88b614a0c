// Launches by the name of a kernel, for ctypes.
#pragma once

#include "collectives.h"
#include "memory.h"

namespace ptx {

struct Entry {
    const char* name;
    Kernel kernel;
    bool waits;
};

extern const Entry ENTRIES[];  // the last without a name

extern "C" {

const char* ptx_failure() { return failure; }

void ptx_move_seeds(s64 by) { seed_moves_by = by; }

// 0 if all threads came to their end. `together`: blocks at once.
int ptx_launch(const char* name, const void* params, const u32* grid, const u32* block, u32 static_bytes,
               u32 dynamic_bytes, u64 seed, u32 together) {
    static std::vector<std::unique_ptr<Block>> blocks;
    const Entry* entry = ENTRIES;
    while (entry->name && std::strcmp(entry->name, name)) ++entry;
    launched = {entry->kernel, entry->waits, reinterpret_cast<u64>(params), {grid[0], grid[1], grid[2]},
                {block[0], block[1], block[2]}, static_bytes, dynamic_bytes};
    random_state = seed;
    failure[0] = 0;
    std::vector<u32> order(launched.grid.all());
    for (size_t i = 0; i < order.size(); ++i) {
        order[i] = static_cast<u32>(i);
        std::swap(order[i], order[random_word() % (i + 1)]);
    }
    while (blocks.size() > together) blocks.pop_back();
    while (blocks.size() < together) blocks.push_back(std::make_unique<Block>());
    const bool done = entry->waits ? run_fibers(blocks, order) : run_plain(*blocks[0], order);
    if (!done) blocks.clear();  // fibers that never came to their end
    return done ? 0 : 1;
}

}  // extern "C"

}  // namespace ptx
