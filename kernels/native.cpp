// The CPU driver: threads, memory and the order of stages, behind a plain C interface (servegen_gpu/backends/native.py
// loads it). All arithmetic is in strips.cpp, built once for each vector extension.
//
//   draw:    gaps -> ticks -> sums -> times, and how many requests each bin of time gets     (over blocks of requests)
//   columns: fields, records into bins; bins sorted one by one in cache, columns written     (over tasks, over bins)
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "job.h"

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

constexpr int64_t BLOCK = 8192;          // requests a block: their gaps stay in the second-level cache
constexpr int64_t BIN = 8192;            // requests that a bin of time is meant to hold, for the same reason
constexpr int64_t MAX_BINS = 2048;       // more than that at once, and scattered writes miss the address cache
constexpr int64_t WINDOW_TICKS = int64_t{1} << 62;
constexpr int64_t MAX_REQUESTS = (int64_t{1} << 32) - 1;
constexpr int64_t NO_MEMORY = -1, TOO_MANY = -2;

// Large blocks that were given back, for the next slab while there are holders: the system would clear them again.
class Spare {
  public:
    static void* take(size_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex);
        for (size_t i = 0; i < kept.size(); ++i) {
            if (kept[i].second != bytes) continue;
            void* at = kept[i].first;
            kept.erase(kept.begin() + i);
            return at;
        }
        return map(bytes);
    }
    static void give(void* at, size_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (holders == 0 || kept.size() == MOST) unmap(at, bytes);
        else kept.push_back({at, bytes});
    }
    static void hold(int64_t more) {
        const std::lock_guard<std::mutex> lock(mutex);
        holders += more;
        if (holders > 0) return;
        for (const auto& block : kept) unmap(block.first, block.second);
        kept.clear();
    }

  private:
    static constexpr size_t MOST = 2;  // of a slab: sums and records
    static std::mutex mutex;
    static std::vector<std::pair<void*, size_t>> kept;
    static int64_t holders;

#if defined(__linux__)
    static void* map(size_t bytes) {
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) return nullptr;
        madvise(at, bytes, MADV_HUGEPAGE);
        return at;
    }
    static void unmap(void* at, size_t bytes) { munmap(at, bytes); }
#else
    static void* map(size_t bytes) { return std::malloc(bytes); }
    static void unmap(void* at, size_t) { std::free(at); }
#endif
};

std::mutex Spare::mutex;
std::vector<std::pair<void*, size_t>> Spare::kept;
int64_t Spare::holders = 0;

// Memory that is not initialised; in large pages where the system has them.
class Memory {
  public:
    explicit Memory(size_t bytes) : bytes_(bytes < LARGE ? bytes + 1 : rounded(bytes)) {
        at_ = bytes_ < LARGE ? std::malloc(bytes_) : Spare::take(bytes_);
        if (!at_) throw std::bad_alloc();
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory() {
        if (bytes_ < LARGE) std::free(at_);
        else Spare::give(at_, bytes_);
    }
    template <class T>
    T* as() const {
        return static_cast<T*>(at_);
    }

  private:
    static constexpr size_t LARGE = size_t{1} << 22;

    // Up to the next of 16 steps between powers of two: slabs of about one size fit each other's blocks.
    static size_t rounded(size_t bytes) {
        size_t step = LARGE / 16;
        while (step * 32 < bytes) step *= 2;
        return (bytes + step - 1) / step * step;
    }

    void* at_;
    size_t bytes_;
};

using Held = std::unique_ptr<Memory>;

Held numbers(int64_t count) { return std::make_unique<Memory>(static_cast<size_t>(count + SG_PAD) * sizeof(int64_t)); }

// work(i) for i in [0, count) on some threads, the next free one each.
template <class Work>
void for_each(int64_t count, int64_t threads, const Work& work) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    auto run = [&] {
        try {
            for (int64_t i; !failed && (i = next.fetch_add(1)) < count;) work(i);
        } catch (const std::bad_alloc&) {
            failed = true;
        }
    };
    std::vector<std::thread> others;
    try {
        for (int64_t t = 1; t < std::min(threads, count); ++t) others.emplace_back(run);
    } catch (const std::system_error&) {
        // fewer threads than wanted: those that there are do the work
    }
    run();
    for (std::thread& other : others) other.join();
    if (failed) throw std::bad_alloc();
}

struct Range {
    int64_t begin, end;
};

// Consecutive items in ranges of about `target` requests.
template <class Count>
std::vector<Range> ranges_of(int64_t items, int64_t target, const Count& count) {
    std::vector<Range> ranges;
    int64_t begin = 0, sum = 0;
    for (int64_t i = 0; i < items; ++i) {
        if (sum && sum + count(i) > target) {
            ranges.push_back({begin, i});
            begin = i;
            sum = 0;
        }
        sum += count(i);
    }
    if (begin < items) ranges.push_back({begin, items});
    return ranges;
}

struct Draw {
    std::vector<SgSegment> segments;
    std::vector<Range> tasks;          // of segments
    std::vector<Held> memory;          // what the segments' data points into
    std::vector<uint32_t> histogram;   // [tasks, bins], later the next place of a task in a bin
    std::vector<int64_t> bin_begins;   // [bins + 1]
    int shift = 0;
    int64_t bins = 0, count = 0;
};

// Two sums of ticks together, never beyond the window's: a renewal cell stays at its end.
int64_t join(int64_t before, int64_t ticks) { return before + std::min(ticks, WINDOW_TICKS - before); }

bool is_renewal(const SgJob& job, int32_t cell) { return job.rule[cell] == SG_RENEWAL; }

// Segments of all cells: a cell's requests in order, cut where a block is full.
void lay_out(const SgJob& job, Draw& draw) {
    int64_t used = 0, total = 0;
    for (int64_t cell = 0; cell < job.cells; ++cell) {
        const int32_t at = static_cast<int32_t>(cell);
        int64_t left = job.count[cell];
        if (is_renewal(job, at)) left = job.first_ticks[cell] < WINDOW_TICKS ? job.capacity[cell] : 0;
        total += left;
        uint32_t first = 0;
        while (left > 0) {
            // a small cell is rather moved to the next block than cut
            if (used + left > BLOCK && (used >= BLOCK || (first == 0 && left <= BLOCK / 4))) used = 0;
            const int64_t now = std::min(left, BLOCK - used);
            draw.segments.push_back({nullptr, 0, 0, 0.0, first, static_cast<uint32_t>(now), at});
            used += now;
            first += static_cast<uint32_t>(now);
            left -= now;
        }
    }
    draw.memory.push_back(numbers(total));
    int64_t* data = draw.memory.back()->as<int64_t>();
    for (SgSegment& segment : draw.segments) {
        segment.data = data;
        data += segment.count;
    }
}

std::vector<Range> blocks_of(const Draw& draw) {
    return ranges_of(static_cast<int64_t>(draw.segments.size()), BLOCK,
                     [&](int64_t i) { return draw.segments[i].count; });
}

// Segments of each cell that has more than one.
std::vector<Range> cut_cells(const std::vector<SgSegment>& segments) {
    std::vector<Range> cut;
    const int64_t n = static_cast<int64_t>(segments.size());
    for (int64_t a = 0; a < n;) {
        int64_t b = a + 1;
        while (b < n && segments[b].cell == segments[a].cell) ++b;
        if (b - a > 1) cut.push_back({a, b});
        a = b;
    }
    return cut;
}

// work(begin, count) for every stretch of segments that are chosen.
template <class Chosen, class Work>
void for_stretches(Range block, const Chosen& chosen, const Work& work) {
    for (int64_t a = block.begin; a < block.end;) {
        if (!chosen(a)) {
            ++a;
            continue;
        }
        int64_t b = a + 1;
        while (b < block.end && chosen(b)) ++b;
        work(a, b - a);
        a = b;
    }
}

// Renewal cells that have not passed the window's end after the gaps that were laid out: draw on.
void draw_on(const SgStrips& strips, const SgJob& job, Draw& draw, const std::vector<SgSegment>& open) {
    struct More {
        std::vector<SgSegment> segments;
        std::vector<Held> memory;
    };
    std::vector<More> more(open.size());
    for_each(static_cast<int64_t>(open.size()), job.threads, [&](int64_t k) {
        int64_t before = open[k].before + open[k].total;
        int64_t first = int64_t{open[k].first} + open[k].count;
        while (before < WINDOW_TICKS) {
            const int64_t count = std::min(first / 4 + 4, BLOCK);
            more[k].memory.push_back(numbers(count));
            int64_t* data = more[k].memory.back()->as<int64_t>();
            SgSegment segment = {data, before, 0, 0.0, static_cast<uint32_t>(first), static_cast<uint32_t>(count),
                                 open[k].cell};
            strips.gaps(job, &segment, 1);
            strips.ticks(job, &segment, 1);
            more[k].segments.push_back(segment);
            before = join(before, segment.total);
            first += count;
        }
    });
    std::vector<SgSegment> all;
    size_t k = 0;
    for (size_t i = 0; i < draw.segments.size(); ++i) {
        const SgSegment& segment = draw.segments[i];
        all.push_back(segment);
        const bool last = i + 1 == draw.segments.size() || draw.segments[i + 1].cell != segment.cell;
        if (last && k < open.size() && open[k].cell == segment.cell) {
            all.insert(all.end(), more[k].segments.begin(), more[k].segments.end());
            for (Held& held : more[k].memory) draw.memory.push_back(std::move(held));
            ++k;
        }
    }
    draw.segments = std::move(all);
}

// Sums of ticks of all requests of the cells; finds the unit and the sum of each counted cell.
void draw_whole(const SgStrips& strips, const SgJob& job, Draw& draw) {
    lay_out(job, draw);
    std::vector<SgSegment>& segments = draw.segments;
    const std::vector<Range> blocks = blocks_of(draw), cut = cut_cells(segments);
    std::vector<uint8_t> waits(segments.size(), 0);  // for the largest gap of a cell that other blocks share
    for (const Range& cell : cut)
        if (!is_renewal(job, segments[cell.begin].cell))
            std::fill(waits.begin() + cell.begin, waits.begin() + cell.end, 1);

    for_each(static_cast<int64_t>(blocks.size()), job.threads, [&](int64_t b) {
        const Range block = blocks[b];
        strips.gaps(job, &segments[block.begin], block.end - block.begin);
        for (int64_t k = block.begin; k < block.end; ++k)
            if (!waits[k] && !is_renewal(job, segments[k].cell)) job.log_unit[segments[k].cell] = segments[k].peak;
        for_stretches(block, [&](int64_t k) { return !waits[k]; },
                      [&](int64_t k, int64_t count) { strips.ticks(job, &segments[k], count); });
        for (int64_t k = block.begin; k < block.end; ++k)
            if (!waits[k] && !is_renewal(job, segments[k].cell)) job.ticks_in_all[segments[k].cell] = segments[k].total;
    });
    if (!cut.empty()) {
        for (const Range& cell : cut) {
            if (!waits[cell.begin]) continue;
            double peak = segments[cell.begin].peak;
            for (int64_t k = cell.begin; k < cell.end; ++k) peak = std::max(peak, segments[k].peak);
            job.log_unit[segments[cell.begin].cell] = peak;
        }
        for_each(static_cast<int64_t>(blocks.size()), job.threads, [&](int64_t b) {
            for_stretches(blocks[b], [&](int64_t k) { return waits[k] != 0; },
                          [&](int64_t k, int64_t count) { strips.ticks(job, &segments[k], count); });
        });
        for (const Range& cell : cut) {
            int64_t before = 0;
            for (int64_t k = cell.begin; k < cell.end; ++k) {
                segments[k].before = before;
                before = join(before, segments[k].total);
            }
            if (waits[cell.begin]) job.ticks_in_all[segments[cell.begin].cell] = before;
        }
    }
    std::vector<SgSegment> open;
    for (size_t k = 0; k < segments.size(); ++k) {
        SgSegment& segment = segments[k];
        if (!is_renewal(job, segment.cell)) continue;
        const bool last = k + 1 == segments.size() || segments[k + 1].cell != segment.cell;
        if (last && join(segment.before, segment.total) < WINDOW_TICKS) open.push_back(segment);
        if (segment.before >= WINDOW_TICKS) segment.count = 0;
    }
    if (!open.empty()) draw_on(strips, job, draw, open);
}

// Runs as segments of a block at most; `count` and `first` as in servegen_gpu/backends/numpy_arrivals.py.
struct Runs {
    const int64_t *cell, *first, *count, *before;
    int64_t runs;
};

// Sums of ticks of known runs of cells whose unit and sum are known. Runs are no longer than a block.
void draw_runs(const SgStrips& strips, const SgJob& job, const Runs& runs, Draw& draw) {
    int64_t total = 0;
    for (int64_t r = 0; r < runs.runs; ++r) total += runs.count[r];
    draw.memory.push_back(numbers(total));
    int64_t* data = draw.memory.back()->as<int64_t>();
    for (int64_t r = 0; r < runs.runs; ++r) {
        draw.segments.push_back({data, runs.before[r], 0, 0.0, static_cast<uint32_t>(runs.first[r]),
                                 static_cast<uint32_t>(runs.count[r]), static_cast<int32_t>(runs.cell[r])});
        data += runs.count[r];
    }
    const std::vector<Range> blocks = blocks_of(draw);
    for_each(static_cast<int64_t>(blocks.size()), job.threads, [&](int64_t b) {
        strips.gaps(job, &draw.segments[blocks[b].begin], blocks[b].end - blocks[b].begin);
        strips.ticks(job, &draw.segments[blocks[b].begin], blocks[b].end - blocks[b].begin);
    });
}

// Sums into times, and where the requests of each task go in each bin.
void bin_times(const SgStrips& strips, const SgJob& job, Draw& draw) {
    int64_t total = 0;
    for (const SgSegment& segment : draw.segments) total += segment.count;
    const int64_t span = std::max<int64_t>(job.span_us, 1);
    const int64_t wanted = std::min(std::max<int64_t>(total / BIN, 1), MAX_BINS);
    while (draw.shift < 32 && (span - 1) >> draw.shift >= wanted) ++draw.shift;
    draw.bins = ((span - 1) >> draw.shift) + 1;
    const int64_t per_task = total / (8 * job.threads) + BLOCK;
    draw.tasks = ranges_of(static_cast<int64_t>(draw.segments.size()), per_task,
                           [&](int64_t i) { return draw.segments[i].count; });
    const int64_t tasks = static_cast<int64_t>(draw.tasks.size());
    draw.histogram.assign(tasks * draw.bins, 0);
    for_each(tasks, job.threads, [&](int64_t t) {
        const Range task = draw.tasks[t];
        strips.times(job, &draw.segments[task.begin], task.end - task.begin, draw.shift,
                     &draw.histogram[t * draw.bins]);
    });
    draw.bin_begins.resize(draw.bins + 1);
    int64_t sum = 0;
    for (int64_t bin = 0; bin < draw.bins; ++bin) {
        draw.bin_begins[bin] = sum;
        for (int64_t t = 0; t < tasks; ++t) {
            uint32_t& place = draw.histogram[t * draw.bins + bin];
            const uint32_t here = place;
            place = static_cast<uint32_t>(sum);
            sum += here;
        }
    }
    draw.bin_begins[draw.bins] = draw.count = sum;
}

void write_columns(const SgStrips& strips, const SgJob& job, Draw& draw, const SgOut& out) {
    SgBins bins = {nullptr, 2 + job.scalar_fields + (out.ordinal ? 1 : 0), draw.shift, out.ordinal != nullptr};
    Memory records(static_cast<size_t>(draw.count) * bins.words * sizeof(uint32_t));
    bins.records = records.as<uint32_t>();
    for_each(static_cast<int64_t>(draw.tasks.size()), job.threads, [&](int64_t t) {
        const Range task = draw.tasks[t];
        strips.records(job, &draw.segments[task.begin], task.end - task.begin, bins, &draw.histogram[t * draw.bins]);
    });
    draw.memory.clear();
    std::atomic<int64_t> next{0};
    for_each(job.threads, job.threads, [&](int64_t) {
        std::vector<uint64_t> scratch;
        for (int64_t bin; (bin = next.fetch_add(1)) < draw.bins;) {
            const int64_t begin = draw.bin_begins[bin], count = draw.bin_begins[bin + 1] - begin;
            if (!count) continue;
            if (scratch.size() < static_cast<size_t>(2 * count)) scratch.resize(2 * count);
            strips.columns(job, bins, bin, begin, count, out, begin, scratch.data());
        }
    });
}

template <class Work>
int64_t guarded(const Work& work) {
    try {
        return work();
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
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

// Keeps the memory of slabs for further ones: as long as more were added than taken away.
SG_EXPORT void sg_hold(int64_t more) { Spare::hold(more); }

SG_EXPORT void* sg_function(const SgStrips* strips, const char* name) { return strips->function(name); }

// Draws all requests of the cells (runs null), or some runs of them. Returns how many are inside the slab and a handle
// for `sg_columns`, or what went wrong.
SG_EXPORT int64_t sg_draw(const SgStrips* strips, const SgJob* job, const Runs* runs, void** handle) {
    *handle = nullptr;
    return guarded([&]() -> int64_t {
        auto draw = std::make_unique<Draw>();
        if (runs) draw_runs(*strips, *job, *runs, *draw);
        else draw_whole(*strips, *job, *draw);
        bin_times(*strips, *job, *draw);
        const int64_t count = draw->count;
        if (count > MAX_REQUESTS) return TOO_MANY;
        *handle = draw.release();
        return count;
    });
}

// Writes the columns of what was drawn.
SG_EXPORT int64_t sg_columns(const SgStrips* strips, const SgJob* job, void* handle, const SgOut* out) {
    return guarded([&]() -> int64_t {
        write_columns(*strips, *job, *static_cast<Draw*>(handle), *out);
        return 0;
    });
}

SG_EXPORT void sg_free(void* handle) { delete static_cast<Draw*>(handle); }

// Of runs no longer than a block: the largest logarithm of a gap, or the sum of the ticks.
SG_EXPORT int64_t sg_survey(const SgStrips* strips, const SgJob* job, const Runs* runs, double* peak,
                            int64_t* total) {
    return guarded([&]() -> int64_t {
        const std::vector<Range> blocks = ranges_of(runs->runs, BLOCK, [&](int64_t r) { return runs->count[r]; });
        std::vector<int64_t> starts(runs->runs + 1, 0);
        for (int64_t r = 0; r < runs->runs; ++r) starts[r + 1] = starts[r] + runs->count[r];
        for_each(static_cast<int64_t>(blocks.size()), job->threads, [&](int64_t b) {
            const Range block = blocks[b];
            const Held held = numbers(starts[block.end] - starts[block.begin]);
            int64_t* data = held->as<int64_t>();
            std::vector<SgSegment> segments;
            for (int64_t r = block.begin; r < block.end; ++r)
                segments.push_back({data + (starts[r] - starts[block.begin]), 0, 0, 0.0,
                                    static_cast<uint32_t>(runs->first[r]), static_cast<uint32_t>(runs->count[r]),
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
                segments.push_back({data, done ? -1 : runs->before[r], 0, 0.0,
                                    static_cast<uint32_t>(runs->first[r] + done), static_cast<uint32_t>(now),
                                    static_cast<int32_t>(runs->cell[r])});
                data += now;
            }
        }
        const std::vector<Range> blocks = ranges_of(static_cast<int64_t>(segments.size()), BLOCK,
                                                    [&](int64_t i) { return segments[i].count; });
        const auto for_blocks = [&](const auto& work) {
            for_each(static_cast<int64_t>(blocks.size()), job->threads, [&](int64_t b) { work(blocks[b]); });
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

// Values of all items of one kind, and their sums added to `inputs`.
SG_EXPORT int64_t sg_items(const SgStrips* strips, const SgJob* job, int64_t purpose, int64_t field, int64_t requests,
                           const int32_t* cell, const uint32_t* ordinal, const int64_t* offsets, int32_t* values,
                           int32_t* inputs) {
    return guarded([&]() -> int64_t {
        for_each((requests + BLOCK - 1) / BLOCK, job->threads, [&](int64_t b) {
            strips->items(*job, purpose, field, b * BLOCK, std::min((b + 1) * BLOCK, requests), cell, ordinal, offsets,
                          values, inputs);
        });
        return 0;
    });
}
