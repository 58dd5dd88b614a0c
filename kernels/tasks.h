// Slabs of many requests a cell, without a sort of the slab: kernels in which a warp draws a task, up to TASK consecutive
// requests of one cell, and a block puts a bucket of time in order. servegen_gpu/backends/cuda/tasks.py launches them in
// this order; the rows are those of slab.h.
//
//   task                          which run each task belongs to                                  (tasks)
//   draw -> tick                  gaps, and their sums inside each task                           (warps)
//   reach -> more                 where renewals pass the window's end; how far those go that have not yet
//   time                          microseconds of every request, and how many each bucket gets    (warps)
//   scatter                       fields, and items of 16 bytes to their buckets in any order     (warps)
//   arrange                       a bucket's items in order, as columns                           (blocks)
//
// An item has its key in one word: time inside the bucket, then position, which no other request has, then the client's
// id; and its fields in another.
#pragma once

#include "slab.h"
#include "warps.h"

namespace SG_NAMESPACE {

constexpr int PER_LANE = 4;
constexpr int TASK = 32 * PER_LANE;
constexpr uint32_t NO_TIME = 0xFFFFFFFF;  // of requests that are dropped
constexpr int BUCKET_THREADS = 256;

struct alignas(16) TwoSums {
    int64_t a, b;
};

struct Item {
    uint64_t key, fields;
};

#if defined(__CUDACC__)
extern __shared__ uint4 shared_bytes[];
#define SG_SHARED(TYPE) reinterpret_cast<TYPE*>(shared_bytes)
#else
#define SG_SHARED(TYPE) reinterpret_cast<TYPE*>(shared_bytes_on_host)
#endif

SG_WARP Item as_item(uint4 x) {
    return {static_cast<uint64_t>(x.y) << 32 | x.x, static_cast<uint64_t>(x.w) << 32 | x.z};
}

SG_WARP uint4 as_words(Item item) {
    return make_uint4(static_cast<uint32_t>(item.key), static_cast<uint32_t>(item.key >> 32),
                      static_cast<uint32_t>(item.fields), static_cast<uint32_t>(item.fields >> 32));
}

// Which run each task belongs to: the last that begins at or before it.
SG_DEVICE void task_at(const SlabJob& job, int64_t task) {
    job.task_run[task] = static_cast<int32_t>(run_of(job.task_begin, 0, job.runs - 1, task));
}

// A task, the same for all lanes of its warp.
struct Task {
    int64_t run, cell;
    uint32_t first;  // ordinal of its first request
    int count;
};

SG_WARP Task task_of(const SlabJob& job, int64_t task) {
    const int64_t run = job.task_run[task];
    const int64_t before = (task - job.task_begin[run]) * TASK, left = job.run_count[run] - before;
    return {run, job.run_cell ? job.run_cell[run] : run,
            static_cast<uint32_t>((job.run_first ? job.run_first[run] : 0) + before),
            static_cast<int>(left < TASK ? left : TASK)};
}

// Ticks of the cell before a task. Sums of tasks go on over the bounds of runs; differences undo that.
SG_WARP int64_t ticks_before(const SlabJob& job, int64_t task, int64_t run) {
    const int64_t first = job.task_begin[run], earlier = first > 0 ? job.task_sum[first - 1] : 0;
    const int64_t before = task > first ? minus(job.task_sum[task - 1], earlier) : 0;
    return plus(job.run_before ? job.run_before[run] : 0, before);
}

// What drawing gaps needs of a cell.
struct CellLaw {
    uint8_t family;
    uint32_t client, window;
    GapConstants of;
    double log_unit, ticks_per_unit;
};

SG_WARP CellLaw law_of(const SlabJob& job, int64_t cell) {
    return {job.family[job.cell_law[cell]], job.cell_client[cell], job.cell_number[cell],
            {job.cell_d[cell], job.cell_c[cell], job.cell_log_d[cell], job.cell_boost[cell]},
            job.log_unit[cell], job.ticks_per_unit[cell]};
}

// Sums of a lane's ticks, and of the lanes before; writes them, and the task's.
SG_WARP void write_sums(const SlabJob& job, int64_t task, int64_t* ticks) {
    SG_UNROLL for (int r = 1; r < PER_LANE; ++r) ticks[r] = at_most(WINDOW_TICKS, ticks[r - 1], ticks[r]);
    const int64_t up_to_here = sum_of_lanes(ticks[PER_LANE - 1], WINDOW_TICKS);
    const int64_t other = __shfl_up_sync(ALL_LANES, up_to_here, 1), before = lane_of() ? other : 0;
    SG_UNROLL for (int r = 0; r < PER_LANE; ++r) ticks[r] = at_most(WINDOW_TICKS, before, ticks[r]);
    TwoSums* at = reinterpret_cast<TwoSums*>(job.ticks + task * TASK + lane_of() * PER_LANE);
    SG_UNROLL for (int r = 0; r < PER_LANE; r += 2) at[r / 2] = {ticks[r], ticks[r + 1]};
    if (lane_of() == 31) job.task_ticks[task] = ticks[PER_LANE - 1];
}

SG_WARP void draw_task(const SlabJob& job, int64_t index, const NormalRows& normals) {
    const Task task = task_of(job, index);
    const CellLaw law = law_of(job, task.cell);
    const Key key = key_of(job);
    const uint32_t first = task.first + lane_of() * PER_LANE;
    const int mine = task.count - lane_of() * PER_LANE;  // requests of this lane
    double gap[PER_LANE];
    int rejected = 0;
    SG_UNROLL for (int r = 0; r < PER_LANE; ++r) {
        const LogGap tried = try_log_gap(law.family, draw(key, GAP, first + r, law.client, law.window), law.of, normals);
        gap[r] = tried.log_gap;
        rejected |= (r < mine && !tried.accepted ? 1 : 0) << r;
    }
    // few are rejected: a warp is done with all of them in about two more tries
    for (uint32_t attempt = 1; rejected; ++attempt) {
        const int r = __ffs(static_cast<uint32_t>(rejected)) - 1;
        const LogGap tried =
            try_log_gap(law.family, draw(key, GAP, first + r, law.client, law.window, attempt), law.of, normals);
        if (!tried.accepted && attempt + 1 < MAX_ATTEMPTS) continue;
        SG_UNROLL for (int k = 0; k < PER_LANE; ++k) gap[k] = k == r ? tried.log_gap : gap[k];
        rejected &= rejected - 1;
        attempt = 0;
    }
    if (job.cell_rule[task.cell] != RENEWAL && !job.units_known) {
        uint64_t peak = 0;
        SG_UNROLL for (int r = 0; r < PER_LANE; ++r) {
            const uint64_t of = r < mine ? ordered(gap[r]) : 0;
            peak = of > peak ? of : peak;
        }
        peak = largest_of_lanes(peak);
        if (lane_of() == 0) raise(job.peak + task.cell, peak);
        TwoSums* at = reinterpret_cast<TwoSums*>(job.ticks + index * TASK + lane_of() * PER_LANE);
        SG_UNROLL for (int r = 0; r < PER_LANE; r += 2) at[r / 2] = {bits_of(gap[r]), bits_of(gap[r + 1])};
        return;
    }
    int64_t ticks[PER_LANE];
    SG_UNROLL for (int r = 0; r < PER_LANE; ++r)
        ticks[r] = r < mine ? gap_ticks(gap[r], law.log_unit, law.ticks_per_unit) : 0;
    if (first == 0 && job.cell_rule[task.cell] == RENEWAL) ticks[0] = job.first_ticks[task.cell];
    write_sums(job, index, ticks);
}

// Logarithms of a counted cell's gaps into sums of ticks, once its unit is known.
SG_WARP void tick_task(const SlabJob& job, int64_t index) {
    const Task task = task_of(job, index);
    if (job.cell_rule[task.cell] == RENEWAL) return;
    const double log_unit = job.log_unit[task.cell], ticks_per_unit = job.ticks_per_unit[task.cell];
    const int mine = task.count - lane_of() * PER_LANE;
    const TwoSums* at = reinterpret_cast<const TwoSums*>(job.ticks + index * TASK + lane_of() * PER_LANE);
    int64_t ticks[PER_LANE];
    SG_UNROLL for (int r = 0; r < PER_LANE; r += 2) {
        const TwoSums both = at[r / 2];
        ticks[r] = r < mine ? gap_ticks(from_bits(both.a), log_unit, ticks_per_unit) : 0;
        ticks[r + 1] = r + 1 < mine ? gap_ticks(from_bits(both.b), log_unit, ticks_per_unit) : 0;
    }
    write_sums(job, index, ticks);
}

// The sum of a run; where a renewal passes its window's end. One thread a task.
SG_WARP void reach_at(const SlabJob& job, int64_t index) {
    const Task task = task_of(job, index);
    const int64_t before = ticks_before(job, index, task.run), after = plus(before, job.task_ticks[index]);
    const bool renewal = job.cell_rule[task.cell] == RENEWAL;
    if (index + 1 == job.task_begin[task.run + 1]) {
        if (!renewal) job.ticks_in_all[task.cell] = after;
        job.last[task.cell] = after;
        job.drawn[task.cell] = static_cast<int64_t>(task.first) + task.count;
    }
    // sums that go on beyond the end may wrap around, and pass it again
    const uint64_t end = static_cast<uint64_t>(WINDOW_TICKS);
    if (!renewal || static_cast<uint64_t>(before) >= end || static_cast<uint64_t>(after) < end) return;
    const int64_t* sums = job.ticks + index * TASK;
    int low = 0, high = task.count - 1;
    while (low < high) {
        const int middle = (low + high) >> 1;
        if (before + sums[middle] >= WINDOW_TICKS) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    atomicMin(reinterpret_cast<unsigned long long*>(job.kept + task.cell),
              static_cast<unsigned long long>(task.first + static_cast<uint32_t>(low)));
}

// A renewal that has not passed its window's end goes on until it does. One warp a run; the run's count is what it takes.
SG_WARP void more_of(const SlabJob& job, int64_t run, const NormalRows& normals) {
    const int64_t cell = job.run_cell[run];
    const CellLaw law = law_of(job, cell);
    int64_t before = job.run_before[run];
    uint32_t first = static_cast<uint32_t>(job.run_first[run]);
    uint32_t passed = 0;
    for (; !passed; first += 32) {
        const uint32_t ordinal = first + lane_of();
        LogGap gap = {0.0, 0};
        for (uint32_t attempt = 0; !gap.accepted && attempt < MAX_ATTEMPTS; ++attempt)
            gap = try_log_gap(law.family, draw(key_of(job), GAP, ordinal, law.client, law.window, attempt), law.of, normals);
        const int64_t sum = sum_of_lanes(gap_ticks(gap.log_gap, law.log_unit, law.ticks_per_unit), WINDOW_TICKS);
        passed = __ballot_sync(ALL_LANES, at_most(WINDOW_TICKS, before, sum) >= WINDOW_TICKS);
        before = at_most(WINDOW_TICKS, before, __shfl_sync(ALL_LANES, sum, 31));
    }
    if (lane_of() == 0) {
        job.kept[cell] = static_cast<int64_t>(first) - 32 + __ffs(passed) - 1;
        job.more[run] = job.kept[cell] - job.run_first[run];
    }
}

// Times, in the order of requests, and how many each bucket gets.
SG_WARP void time_task(const SlabJob& job, int64_t index) {
    const Task task = task_of(job, index);
    const int64_t before = ticks_before(job, index, task.run), window = job.cell_window[task.cell];
    const int64_t origin_us = job.window_origin_us[window], kept = job.kept[task.cell];
    SG_UNROLL for (int r = 0; r < PER_LANE; ++r) {
        const int i = r * 32 + lane_of();
        uint32_t time = NO_TIME;
        if (i < task.count && task.first + static_cast<uint32_t>(i) < kept) {
            const FromStart x = operational(job, task.cell, plus(before, job.ticks[index * TASK + i]));
            const int64_t us = origin_us + clock_at(job, window, static_cast<uint32_t>(x.x));
            if (x.inside && us >= 0 && us < job.span_us) time = static_cast<uint32_t>(us);
        }
        job.time[index * TASK + i] = time;
        const uint32_t bucket = time == NO_TIME ? NO_TIME : time >> job.bucket_shift;
        const Run run = run_of_lanes(bucket);
        if (run.is_first && bucket != NO_TIME) atomicAdd(job.bucket_next + bucket, static_cast<uint32_t>(run.length));
    }
}

// The bin of a word, by the entry of its guide: two bins at most, or else a search.
SG_WARP int32_t value_of(const SlabJob& job, uint32_t word, int32_t table) {
    const int32_t bits = static_cast<int32_t>(job.guide_bits);
    const int32_t at = table << bits | static_cast<int32_t>(word >> (32 - bits));
    const uint4 pair = job.pairs[at];
    if (!(pair.w >> 31)) return static_cast<int32_t>(pair.x < word ? pair.z : pair.y);
    const Tables tables = length_tables(job);
    const int32_t low = static_cast<int32_t>(pair.w & 0x7FFFFFFF);
    return tables.values[halve_bins(word, low, tables.guide[at + table + 1], tables)];
}

SG_WARP void scatter_task(const SlabJob& job, int64_t index, const NormalRows& normals) {
    const Task task = task_of(job, index);
    const uint32_t client = job.cell_client[task.cell], window = job.cell_number[task.cell];
    const int64_t law = job.cell_law[task.cell], profile = law / job.rows, position = job.position_begin[task.cell];
    const int fields = static_cast<int>(job.scalar_fields);
    const int32_t* table = job.table + law * job.fields;
    const int64_t mixing = job.dependence == COPULA ? job.mixing_of[profile] : 0;
    const int32_t context = job.context_tokens ? job.context_tokens[profile] : 0;
    SG_UNROLL for (int r = 0; r < PER_LANE; ++r) {
        const int64_t i = index * TASK + r * 32 + lane_of();
        const uint32_t time = job.time[i], ordinal = task.first + static_cast<uint32_t>(r * 32 + lane_of());
        const uint32_t bucket = time == NO_TIME ? NO_TIME : time >> job.bucket_shift;
        const Run run = run_of_lanes(bucket);
        uint32_t place = 0;
        if (run.is_first && bucket != NO_TIME) place = atomicAdd(job.bucket_next + bucket, static_cast<uint32_t>(run.length));
        place = __shfl_sync(ALL_LANES, place, run.first) + static_cast<uint32_t>(lane_of() - run.first);
        if (bucket == NO_TIME) continue;
        const Words first = draw(key_of(job), DATA, ordinal, client, window);
        uint32_t words[TURN_FIELDS] = {first.w0, first.w1, first.w2};
        if (job.dependence == COMONOTONE) {
            SG_UNROLL for (int f = 1; f < TURN_FIELDS; ++f) words[f] = first.w0;
        } else if (mixing) {
            mix_words<TURN_FIELDS>(job.mixing + mixing * fields * fields, fields, words, normals);
        }
        int32_t value[TURN_FIELDS] = {};
        SG_UNROLL for (int f = 0; f < TURN_FIELDS; ++f)
            if (f < fields) value[f] = value_of(job, words[f], table[f]);
        value[INPUT] = cut_input(value[INPUT], context);
        value[OUTPUT] = cut_output(value[OUTPUT], value[INPUT], context);
        if (job.ratio_field) value[2] = reason_tokens(value[OUTPUT], value[2]);
        const uint64_t inside = time & ((uint32_t{1} << job.bucket_shift) - 1);
        const uint64_t at = static_cast<uint64_t>(position + ordinal);
        Item item = {(inside << job.position_bits | at) << job.client_bits | client, 0};
        SG_UNROLL for (int f = TURN_FIELDS - 1; f >= 0; --f)
            if (f < fields) item.fields = item.fields << job.field_bits | static_cast<uint32_t>(value[f]);
        job.items_out[job.bucket_begin[bucket] + place] = as_words(item);
    }
}

// A bucket of more than `job.bucket_least` and at most `job.bucket_most` items, in order, as columns. A block.
SG_WARP void arrange_bucket(const SlabJob& job, int64_t bucket) {
    const int64_t begin = job.bucket_begin[bucket];
    const int count = static_cast<int>(job.bucket_begin[bucket + 1] - begin);
    if (count <= job.bucket_least || count > job.bucket_most) return;  // all threads of the block
    uint4* items = SG_SHARED(uint4);
    uint32_t* next = reinterpret_cast<uint32_t*>(items + job.bucket_most);  // [slots + 1]
    uint32_t* sums = next + job.bucket_slots + 1;                           // [warps]
    const int slots = static_cast<int>(job.bucket_slots), tid = static_cast<int>(threadIdx.x);
    const int slot_shift = static_cast<int>(job.position_bits + job.client_bits + job.slot_shift);
    for (int s = tid; s <= slots; s += BUCKET_THREADS) next[s] = 0;
    __syncthreads();
    // next[s + 1]: how many items slot s has
    const uint4* from = job.items_out + begin;
    for (int i = tid; i < count; i += BUCKET_THREADS)
        atomicAdd(next + (as_item(from[i]).key >> slot_shift) + 1, uint32_t{1});
    __syncthreads();
    // next[s]: where slot s begins, and next[s + 1] later where it ends
    const int each = slots / BUCKET_THREADS;
    uint32_t sum = 0;
    for (int s = 0; s < each; ++s) sum += next[tid * each + s + 1];
    uint32_t up_to_here = sum;
    SG_UNROLL for (int by = 1; by < 32; by *= 2) {
        const uint32_t other = __shfl_up_sync(ALL_LANES, up_to_here, by);
        if (lane_of() >= by) up_to_here += other;
    }
    if (lane_of() == 31) sums[tid / 32] = up_to_here;
    __syncthreads();
    uint32_t before = up_to_here - sum;
    for (int w = 0; w < tid / 32; ++w) before += sums[w];
    for (int s = 0; s < each; ++s) {
        const uint32_t here = next[tid * each + s + 1];
        next[tid * each + s + 1] = before;
        before += here;
    }
    __syncthreads();
    for (int i = tid; i < count; i += BUCKET_THREADS) {
        const uint4 item = from[i];
        items[atomicAdd(next + (as_item(item).key >> slot_shift) + 1, uint32_t{1})] = item;
    }
    __syncthreads();
    const uint64_t client_mask = (uint64_t{1} << job.client_bits) - 1;
    const uint64_t field_mask = (uint64_t{1} << job.field_bits) - 1;
    const int64_t base_us = (bucket << job.bucket_shift) + job.offset_us;
    const int fields = static_cast<int>(job.scalar_fields);
    for (int i = tid; i < count; i += BUCKET_THREADS) {
        const Item item = as_item(items[i]);
        const uint32_t slot = static_cast<uint32_t>(item.key >> slot_shift);
        const uint32_t first = next[slot], end = next[slot + 1];
        int64_t row = begin + first;
        for (uint32_t k = first; k < end; ++k) row += as_item(items[k]).key < item.key ? 1 : 0;
        job.arrival_us[row] = base_us + static_cast<int64_t>(item.key >> (job.client_bits + job.position_bits));
        job.client[row] = static_cast<int32_t>(item.key & client_mask);
        uint64_t packed = item.fields;
        SG_UNROLL for (int f = 0; f < TURN_FIELDS; ++f)
            if (f < fields) {
                job.field[f][row] = static_cast<int32_t>(packed & field_mask);
                packed >>= job.field_bits;
            }
    }
}

}  // namespace SG_NAMESPACE
