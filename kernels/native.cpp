// The CPU driver, behind a plain C interface (servegen_gpu/backends/native/backend.py loads it). All arithmetic is in
// strips.cpp, built once for each vector extension.
#include <cstring>

#include "columns.h"
#include "draw.h"
#include "cells.h"
#include "loads.h"
#include "serving.h"
#include "turns.h"

#if defined(_WIN32)
#define SG_EXPORT extern "C" __declspec(dllexport)
#else
#define SG_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace baseline {
extern const SgStrips strips;
}
#if defined(SG_X86)
namespace avx2 {
extern const SgStrips strips;
}
namespace avx512 {
extern const SgStrips strips;
}
#endif

namespace {

constexpr int64_t NO_MEMORY = -1, TOO_MANY = -2, GIVEN_UP = -3, NO_ROOM = -4;
constexpr int64_t MAX_REQUESTS = (int64_t{1} << 32) - 1;

template <class Work>
int64_t guarded(const Work& work) {
    try {
        return work();
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    } catch (const Interrupted&) {
        return GIVEN_UP;
    } catch (const NoRoom&) {
        return NO_ROOM;
    }
}

}  // namespace

// The loops of a vector extension by name, or null where this machine lacks it.
SG_EXPORT const SgStrips* sg_strips(const char* name) {
#if defined(SG_X86)
    __builtin_cpu_init();
    if (!std::strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
                   ? &avx512::strips
                   : nullptr;
    if (!std::strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") ? &avx2::strips : nullptr;
#endif
    return std::strcmp(name, "baseline") ? nullptr : &baseline::strips;
}

// Keeps more of the memory of slabs for further ones, as long as more were added than taken away.
SG_EXPORT void sg_hold(int64_t more) { Spare::hold(more); }

// Memory for large columns, which comes from such slabs as well; null where there is none.
SG_EXPORT void* sg_take(int64_t bytes) { return Spare::take(static_cast<size_t>(bytes)); }

SG_EXPORT void sg_give(void* at, int64_t bytes) { Spare::give(at, static_cast<size_t>(bytes)); }

SG_EXPORT void* sg_function(const SgStrips* strips, const char* name) { return strips->function(name); }

// Draws the times of all requests of the cells (runs null), or of some runs of them. Returns how many are inside the
// slab and a handle for `sg_columns`, or what went wrong.
SG_EXPORT int64_t sg_draw(const SgStrips* strips, const SgJob* job, const Runs* runs, void** handle) {
    *handle = nullptr;
    return guarded([&]() -> int64_t {
        Drawing drawing(*strips, *job);
        auto sorting = std::make_unique<Sorting>(*strips, *job, runs ? drawing.known(*runs) : drawing.whole());
        const int64_t count = sorting->count();
        if (count > MAX_REQUESTS) return TOO_MANY;
        *handle = sorting.release();
        return count;
    });
}

// Adds the requests of the cells, or of some runs of them, to bins. `lanes`: the fields that are drawn, ascending.
SG_EXPORT int64_t sg_loads(const SgStrips* strips, const SgJob* job, const Runs* runs, const SgLoads* loads,
                           const int32_t* lanes, int64_t count) {
    return guarded([&]() -> int64_t {
        SgFields fields = {};
        for (; fields.count < count; ++fields.count) fields.lane[fields.count] = lanes[fields.count];
        Drawing drawing(*strips, *job);
        const Drawn drawn = runs ? drawing.known(*runs) : drawing.whole();
        add_loads(*strips, *job, drawn, fields, *loads);
        return drawn.count();
    });
}

// Whether any request that was drawn may have items of a modality.
SG_EXPORT int64_t sg_has_items(const SgStrips*, void* handle, int64_t modality) {
    return static_cast<Sorting*>(handle)->has_items(modality);
}

// Writes the columns of what was drawn, but for the values of items.
SG_EXPORT int64_t sg_columns(const SgStrips*, void* handle, const SgOut* out) {
    return guarded([&]() -> int64_t {
        return static_cast<Sorting*>(handle)->write(*out) ? 0 : NO_ROOM;
    });
}

// How many items of a modality there are, after `sg_columns`.
SG_EXPORT int64_t sg_item_count(const SgStrips*, void* handle, int64_t modality) {
    return static_cast<Sorting*>(handle)->total(modality);
}

// Writes the values of items of a modality, and makes their offsets count from the first row.
SG_EXPORT int64_t sg_items(const SgStrips*, void* handle, int64_t modality, int64_t* offsets, int32_t* values) {
    return guarded([&]() -> int64_t {
        static_cast<Sorting*>(handle)->write_items(modality, offsets, values);
        return 0;
    });
}

// Finds the clients that send in some windows. Returns how many cells they make, and a handle for `sg_cell_rows`.
SG_EXPORT int64_t sg_cells(const SgStrips* strips, const SgGrid* grid, void** handle) {
    *handle = nullptr;
    return guarded([&]() -> int64_t {
        auto found = std::make_unique<Cells>(find_cells(*strips, *grid));
        int64_t count = 0;
        for (const auto& part : *found) count += static_cast<int64_t>(part.size());
        *handle = found.release();
        return count;
    });
}

// Writes them, and lets go of the handle.
SG_EXPORT int64_t sg_cell_rows(const SgStrips*, void* handle, int64_t* client, int64_t* window, int64_t* expected_q32,
                               int64_t* count, int64_t* rotation, int64_t* first_ticks) {
    const std::unique_ptr<Cells> found(static_cast<Cells*>(handle));
    for (const auto& part : *found)
        for (const SgCell& cell : part) {
            *client++ = cell.client;
            *window++ = cell.window;
            *expected_q32++ = cell.expected_q32;
            *count++ = cell.count;
            *rotation++ = cell.rotation;
            *first_ticks++ = cell.first_ticks;
        }
    return 0;
}

SG_EXPORT void sg_free(void* handle) { delete static_cast<Sorting*>(handle); }

// Draws the times of first turns of conversations; a handle for the functions below.
SG_EXPORT int64_t sg_follow(const SgStrips* strips, const SgJob* job, const Runs* runs, const SgTurns* turns,
                            const SgSessions* sessions, int64_t rows, void** handle) {
    *handle = nullptr;
    return guarded([&]() -> int64_t {
        Drawing drawing(*strips, *job);
        *handle = new Following(*strips, *job, *turns, *sessions, runs ? drawing.known(*runs) : drawing.whole(), rows);
        return 0;
    });
}

// Draws about `most` turns; how many they are, 0 at the end.
SG_EXPORT int64_t sg_next_turns(const SgStrips*, void* handle, int64_t most) {
    return guarded([&] { return static_cast<Following*>(handle)->next(most); });
}

SG_EXPORT int64_t sg_turn_rows(const SgStrips*, void* handle, SgTurnRow* out) {
    return guarded([&]() -> int64_t {
        static_cast<Following*>(handle)->write(out);
        return 0;
    });
}

SG_EXPORT int64_t sg_conversations(const SgStrips*, void* handle) {
    return static_cast<Following*>(handle)->conversations();
}

SG_EXPORT int64_t sg_courses(const SgStrips*, void* handle, int64_t* us, int32_t* cell, uint32_t* ordinal,
                             int32_t* turns, int64_t* since_us) {
    static_cast<Following*>(handle)->write_courses(us, cell, ordinal, turns, since_us);
    return 0;
}

SG_EXPORT void sg_free_turns(void* handle) { delete static_cast<Following*>(handle); }

// Rows of several parts in the order of arrival, conversation and turn.
SG_EXPORT int64_t sg_ordered(const SgStrips* strips, const SgTurnRow* const* rows, const int64_t* counts, int64_t parts,
                             int64_t threads, SgTurnRow* out) {
    return guarded([&]() -> int64_t {
        std::vector<TurnRows> all;
        for (int64_t k = 0; k < parts; ++k) all.push_back({rows[k], counts[k]});
        Ordering(*strips, std::move(all), threads).write(out);
        return 0;
    });
}

// Of runs no longer than a block: the largest logarithm of a gap, or the sum of the ticks.
SG_EXPORT int64_t sg_survey(const SgStrips* strips, const SgJob* job, const Runs* runs, double* peak,
                            int64_t* total) {
    return guarded([&]() -> int64_t {
        const std::vector<Range> blocks = ranges_of(0, runs->runs, BLOCK, [&](int64_t r) { return runs->count[r]; });
        std::vector<int64_t> starts(runs->runs + 1, 0);
        for (int64_t r = 0; r < runs->runs; ++r) starts[r + 1] = starts[r] + runs->count[r];
        for_each(static_cast<int64_t>(blocks.size()), job->threads, job->stop, [&](int64_t b, int64_t) {
            const Range block = blocks[b];
            const Held held = room_for<int64_t>(starts[block.end] - starts[block.begin] + SG_PAD);
            int64_t* data = held->as<int64_t>();
            std::vector<SgSegment> segments;
            for (int64_t r = block.begin; r < block.end; ++r)
                segments.push_back({data + (starts[r] - starts[block.begin]), nullptr, 0, 0, 0.0,
                                    static_cast<uint32_t>(runs->first[r]), static_cast<uint32_t>(runs->count[r]), 0,
                                    static_cast<int32_t>(runs->cell[r])});
            strips->gaps(*job, segments.data(), block.end - block.begin);
            if (total) strips->ticks(*job, segments.data(), block.end - block.begin);
            for (int64_t r = block.begin; r < block.end; ++r) {
                const SgSegment& segment = segments[r - block.begin];
                if (peak) peak[r] = segment.peak;
                if (total) total[r] = segment.total;
            }
        });
        return 0;
    });
}

// Sums of ticks of all requests of some renewal runs, never beyond the window's. `sums` has room for SG_PAD more.
SG_EXPORT int64_t sg_sums(const SgStrips* strips, const SgJob* job, const Runs* runs, int64_t* sums) {
    return guarded([&]() -> int64_t {
        std::vector<SgSegment> segments;
        int64_t* data = sums;
        for (int64_t r = 0; r < runs->runs; ++r) {
            for (int64_t done = 0; done < runs->count[r]; done += BLOCK) {
                const int64_t now = std::min(BLOCK, runs->count[r] - done);
                segments.push_back({data, nullptr, done ? -1 : runs->before[r], 0, 0.0,
                                    static_cast<uint32_t>(runs->first[r] + done), static_cast<uint32_t>(now), 0,
                                    static_cast<int32_t>(runs->cell[r])});
                data += now;
            }
        }
        const std::vector<Range> blocks = ranges_of(0, static_cast<int64_t>(segments.size()), BLOCK,
                                                    [&](int64_t i) { return segments[i].count; });
        const auto for_blocks = [&](const auto& work) {
            for_each(static_cast<int64_t>(blocks.size()), job->threads, job->stop,
                     [&](int64_t b, int64_t) { work(blocks[b]); });
        };
        for_blocks([&](Range block) {
            strips->gaps(*job, &segments[block.begin], block.end - block.begin);
            strips->ticks(*job, &segments[block.begin], block.end - block.begin);
        });
        for (size_t k = 1; k < segments.size(); ++k)
            if (segments[k].before < 0)
                segments[k].before = join(segments[k - 1].before, segments[k - 1].total);
        for_blocks([&](Range block) {
            for (int64_t k = block.begin; k < block.end; ++k)
                for (uint32_t i = 0; i < segments[k].count; ++i)
                    segments[k].data[i] = join(segments[k].before, segments[k].data[i]);
        });
        return 0;
    });
}

// Total and weighted sum of the digest of the rows of some columns.
SG_EXPORT int64_t sg_digest(const SgStrips* strips, const SgDigested* columns, int64_t count, int64_t rows,
                            uint64_t* out) {
    strips->digest(columns, count, rows, out);
    return 0;
}

// How a server model serves requests.
SG_EXPORT int64_t sg_serve(const SgStrips*, const SgServing* job) {
    return guarded([&]() -> int64_t {
        serve(*job);
        return 0;
    });
}

// When requests leave workers that take them first come, first served.
SG_EXPORT int64_t sg_queue(const SgStrips*, const int64_t* ready_ns, const int64_t* service_ns, int64_t requests,
                           int64_t workers, int64_t* end_ns) {
    return guarded([&]() -> int64_t {
        queue(ready_ns, service_ns, requests, workers, end_ns);
        return 0;
    });
}
