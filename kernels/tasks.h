// Slabs of many requests a cell, without a sort of the slab: kernels in which a warp draws a task, up to TASK consecutive
// requests of one cell, and a block puts a bucket of time in order. servegen_gpu/backends/cuda/tasks.py launches them in
// this order; the rows are those of slab.h.
//
//   task                          which requests each task has                                    (tasks)
//   draw -> tick                  gaps, and their sums inside each task                           (warps)
//   reach -> more                 where renewals pass the window's end; how far those go that have not yet
//   time                          microseconds of every request, and how many each bucket gets    (warps)
//   scatter                       fields, and items of 16 bytes to their buckets in any order     (warps)
//   arrange                       a bucket's items in order, as columns                           (blocks)
//
// Which threads write an item where in its bucket is left to chance; its key is not.
#pragma once

#include "slab.h"
#include "warps.h"

namespace SG_NAMESPACE {

constexpr int PER_LANE = 8;
constexpr int TASK = 32 * PER_LANE;
constexpr int AT_ONCE = 4;  // requests of a lane whose fields are drawn in step
constexpr uint32_t NO_TIME = 0xFFFFFFFF;  // of requests that are dropped
constexpr int BUCKET_THREADS = 512;

struct alignas(16) TwoSums {
    int64_t a, b;
};

#if defined(__CUDACC__)
extern __shared__ uint4 shared_bytes[];
#define SG_SHARED(TYPE) reinterpret_cast<TYPE*>(shared_bytes)
#else
#define SG_SHARED(TYPE) reinterpret_cast<TYPE*>(shared_bytes_on_host)
#endif

// Items -----------------------------------------------------------------------------------------------------------
// Word x is the position, which no other request has; y the time inside the bucket above the client's id, which
// positions follow where times are equal; z and w are the fields, two of 32 bits or three of 21.

constexpr int FIELD_BITS = 21;
constexpr uint64_t FIELD_MASK = (uint64_t{1} << FIELD_BITS) - 1;

SG_WARP uint64_t two_fields(int32_t a, int32_t b) {
    return static_cast<uint64_t>(static_cast<uint32_t>(b)) << 32 | static_cast<uint32_t>(a);
}

SG_WARP uint64_t three_fields(int32_t a, int32_t b, int32_t c) {
    return static_cast<uint64_t>(c) << 2 * FIELD_BITS | static_cast<uint64_t>(b) << FIELD_BITS | static_cast<uint64_t>(a);
}

SG_WARP uint4 as_words(uint32_t position, uint32_t time_and_client, uint64_t fields) {
    return make_uint4(position, time_and_client, static_cast<uint32_t>(fields), static_cast<uint32_t>(fields >> 32));
}

SG_WARP uint64_t key_of_item(uint4 item) { return static_cast<uint64_t>(item.y) << 32 | item.x; }

// Tasks -----------------------------------------------------------------------------------------------------------

SG_DEVICE void task_at(const SlabJob& job, int64_t index) {
    const int64_t cell = run_of(job.task_begin, 0, job.cells - 1, index), begin = job.task_begin[cell];
    const int64_t before = (index - begin) * TASK, left = job.run_count[cell] - before;
    job.task[index] = {static_cast<int32_t>(cell),
                       static_cast<uint32_t>((job.run_first ? job.run_first[cell] : 0) + before),
                       static_cast<int32_t>(left < TASK ? left : TASK), static_cast<int32_t>(begin)};
}

// Sums of a lane's ticks, and of the lanes before; writes them, and the task's. No sum goes beyond `most`, and none can
// where there is none.
template <bool BOUNDED>
SG_WARP void sum_ticks(int64_t* ticks) {
    SG_UNROLL for (int r = 1; r < PER_LANE; ++r) ticks[r] = plus_at_most<BOUNDED>(ticks[r - 1], ticks[r]);
    const int64_t up_to_here = sum_of_lanes<BOUNDED>(ticks[PER_LANE - 1]);
    const int64_t other = __shfl_up_sync(ALL_LANES, up_to_here, 1), before = lane_of() ? other : 0;
    SG_UNROLL for (int r = 0; r < PER_LANE; ++r) ticks[r] = plus_at_most<BOUNDED>(before, ticks[r]);
}

SG_WARP void write_sums(const SlabJob& job, uint32_t index, int64_t* ticks) {
    int64_t any = 0;
    SG_UNROLL for (int r = 0; r < PER_LANE; ++r) any |= ticks[r];
    // gaps as long as that are rare where a cell has many requests
    if (__any_sync(ALL_LANES, any >= WINDOW_TICKS / TASK)) {
        sum_ticks<true>(ticks);
    } else {
        sum_ticks<false>(ticks);
    }
    TwoSums* at = reinterpret_cast<TwoSums*>(job.ticks + index * TASK + static_cast<uint32_t>(lane_of() * PER_LANE));
    SG_UNROLL for (int r = 0; r < PER_LANE; r += 2) at[r / 2] = {ticks[r], ticks[r + 1]};
    if (lane_of() == 31) job.task_ticks[index] = ticks[PER_LANE - 1];
}

// A lane's gaps of a task as sums of ticks; or as they are where the unit of their cell is their largest.
SG_WARP void place_gaps(const SlabJob& job, uint32_t index, const double* gap) {
    const Task task = job.task[index];
    const CellLaw& law = job.cell_laws[task.cell];
    const int mine = task.count - lane_of() * PER_LANE;  // requests of this lane
    if (law.rule != RENEWAL) {
        uint64_t peak = 0;
        SG_UNROLL for (int r = 0; r < PER_LANE; ++r) {
            const uint64_t of = r < mine ? ordered(gap[r]) : 0;
            peak = of > peak ? of : peak;
        }
        peak = largest_of_lanes(peak);
        if (lane_of() == 0) raise(job.peak + task.cell, peak);
        TwoSums* at = reinterpret_cast<TwoSums*>(job.ticks + index * TASK + static_cast<uint32_t>(lane_of() * PER_LANE));
        SG_UNROLL for (int r = 0; r < PER_LANE; r += 2) at[r / 2] = {bits_of(gap[r]), bits_of(gap[r + 1])};
        return;
    }
    const double log_unit = law.log_unit, ticks_per_unit = law.ticks_per_unit;
    int64_t ticks[PER_LANE];
    SG_UNROLL for (int r = 0; r < PER_LANE; ++r) ticks[r] = gap_ticks(gap[r], log_unit, ticks_per_unit);
    SG_UNROLL for (int r = 0; r < PER_LANE; ++r) ticks[r] = r < mine ? ticks[r] : 0;
    if (task.first == 0 && lane_of() == 0) ticks[0] = job.first_ticks[task.cell];
    write_sums(job, index, ticks);
}

// Tasks that a warp draws before it tries rejected gaps again: all lanes are busy with those of many requests.
constexpr int POOL = 2;

// What a warp keeps of its pool: logarithms of gaps, and which of them are to be tried again.
struct Pool {
    double gap[POOL * TASK];
    uint16_t again[POOL * TASK];
};

// First tries of a task; returns how many of the pool are rejected by now.
template <uint8_t DRAW>
SG_WARP int first_tries(const SlabJob& job, Task task, const CellLaw& law, const NormalRows& normals, int begin,
                        int rejected, Pool& pool) {
    const int lane = lane_of();
    SG_ROLLED for (int r = 0; r < PER_LANE; ++r) {
        const int i = r * 32 + lane;
        const LogGap tried =
            try_log_gap(DRAW, draw(job.round_keys, GAP, task.first + i, law.client, law.window), law.of, normals);
        pool.gap[begin + i] = tried.log_gap;
        if (!may_reject(DRAW)) continue;
        const bool again = i < task.count && !tried.accepted;
        const uint32_t all = __ballot_sync(ALL_LANES, again);
        if (again) pool.again[rejected + __popc(all & ~(ALL_LANES << lane))] = static_cast<uint16_t>(begin + i);
        rejected += __popc(all);
    }
    return rejected;
}

SG_WARP void draw_pool(const SlabJob& job, uint32_t first, const NormalRows& normals, Pool& pool) {
    const uint32_t left = static_cast<uint32_t>(job.tasks) - first;
    const int tasks = left < POOL ? static_cast<int>(left) : POOL, lane = lane_of();
    int rejected = 0;
    for (int p = 0; p < tasks; ++p) {
        const Task task = job.task[first + p];
        const CellLaw law = job.cell_laws[task.cell];
        switch (law.family) {  // the same for the whole warp
#define SG_FIRST_TRIES(NAME, CODE) \
    case NAME: rejected = first_tries<NAME>(job, task, law, normals, p * TASK, rejected, pool); break;
            SG_DRAWS(SG_FIRST_TRIES)
#undef SG_FIRST_TRIES
        }
    }
    __syncwarp();
    for (int k = lane; k < rejected; k += 32) {
        const int place = pool.again[k];
        const Task task = job.task[first + place / TASK];
        const CellLaw law = job.cell_laws[task.cell];
        LogGap tried = {0.0, 0};
        for (uint32_t attempt = 1; !tried.accepted && attempt < MAX_ATTEMPTS; ++attempt) {
            const Words words = draw(job.round_keys, GAP, task.first + place % TASK, law.client, law.window, attempt);
            tried = try_log_gap(law.family, words, law.of, normals);
        }
        pool.gap[place] = tried.log_gap;
    }
    __syncwarp();
    for (int p = 0; p < tasks; ++p) place_gaps(job, first + p, pool.gap + p * TASK + lane * PER_LANE);
    __syncwarp();
}

// Logarithms of a counted cell's gaps into sums of ticks, once its unit is known.
SG_WARP void tick_task(const SlabJob& job, uint32_t index) {
    const Task task = job.task[index];
    if (job.cell_rule[task.cell] == RENEWAL) return;
    const double log_unit = job.log_unit[task.cell], ticks_per_unit = job.ticks_per_unit[task.cell];
    const int mine = task.count - lane_of() * PER_LANE;
    const TwoSums* at = reinterpret_cast<const TwoSums*>(job.ticks + index * TASK + static_cast<uint32_t>(lane_of() * PER_LANE));
    int64_t ticks[PER_LANE];
    SG_UNROLL for (int r = 0; r < PER_LANE; r += 2) {
        const TwoSums both = at[r / 2];
        ticks[r] = gap_ticks(from_bits(both.a), log_unit, ticks_per_unit);
        ticks[r + 1] = gap_ticks(from_bits(both.b), log_unit, ticks_per_unit);
    }
    SG_UNROLL for (int r = 0; r < PER_LANE; ++r) ticks[r] = r < mine ? ticks[r] : 0;
    write_sums(job, index, ticks);
}

// Ticks of the cell before a task; the sum of the cell; where a renewal passes its window's end. One thread a task.
SG_WARP void reach_at(const SlabJob& job, int64_t index) {
    const Task task = job.task[index];
    // sums of tasks go on over the bounds of cells; differences undo that
    const int64_t earlier = task.begin > 0 ? job.task_sum[task.begin - 1] : 0;
    const int64_t before = plus(job.run_before ? job.run_before[task.cell] : 0,
                                index > task.begin ? minus(job.task_sum[index - 1], earlier) : 0);
    const int64_t after = plus(before, job.task_ticks[index]);
    const bool renewal = job.cell_rule[task.cell] == RENEWAL;
    job.task_before[index] = before;
    if (index + 1 == job.task_begin[task.cell + 1]) {
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

// How many requests a renewal takes beyond those it has: none, unless it has not passed its window's end. One warp.
SG_WARP void more_of(const SlabJob& job, uint32_t cell, const NormalRows& normals) {
    if (job.kept[cell] != OPEN) {
        if (lane_of() == 0) job.more[cell] = 0;
        return;
    }
    const CellLaw law = job.cell_laws[cell];
    int64_t before = job.last[cell];
    const uint32_t drawn = static_cast<uint32_t>(job.drawn[cell]);
    uint32_t first = drawn, passed = 0;
    for (; !passed; first += 32) {
        const uint32_t ordinal = first + lane_of();
        LogGap gap = {0.0, 0};
        for (uint32_t attempt = 0; !gap.accepted && attempt < MAX_ATTEMPTS; ++attempt)
            gap = try_log_gap(law.family, draw(job.round_keys, GAP, ordinal, law.client, law.window, attempt), law.of, normals);
        const int64_t sum = sum_of_lanes<true>(gap_ticks(gap.log_gap, law.log_unit, law.ticks_per_unit));
        passed = __ballot_sync(ALL_LANES, plus_at_most<true>(before, sum) >= WINDOW_TICKS);
        before = plus_at_most<true>(before, __shfl_sync(ALL_LANES, sum, 31));
    }
    if (lane_of() == 0) {
        const uint32_t kept = first - 32 + static_cast<uint32_t>(__ffs(passed)) - 1;
        job.kept[cell] = kept;
        job.more[cell] = kept - drawn;
    }
}

// Times, in the order of requests, and how many each bucket gets.
SG_WARP void time_task(const SlabJob& job, uint32_t index) {
    const Task task = job.task[index];
    const int64_t before = job.task_before[index], window = job.cell_window[task.cell];
    const int64_t origin_us = job.window_origin_us[window], kept = job.kept[task.cell];
    SG_UNROLL for (int r = 0; r < PER_LANE; ++r) {
        const int i = r * 32 + lane_of();
        uint32_t time = NO_TIME;
        if (i < task.count && task.first + static_cast<uint32_t>(i) < kept) {
            const FromStart x = operational(job, task.cell, plus(before, job.ticks[index * TASK + static_cast<uint32_t>(i)]));
            const int64_t us = origin_us + clock_at(job, window, static_cast<uint32_t>(x.x));
            if (x.inside && us >= 0 && us < job.span_us) time = static_cast<uint32_t>(us);
        }
        job.time[index * TASK + static_cast<uint32_t>(i)] = time;
        const uint32_t bucket = time == NO_TIME ? NO_TIME : time >> job.bucket_shift;
        const Run run = run_of_lanes(bucket);
        if (run.is_first && bucket != NO_TIME) atomicAdd(job.bucket_next + bucket, static_cast<uint32_t>(run.length));
    }
}

// The search of a word among the bins of its guide's entry, for the few whose entry has more than two.
SG_WARP int32_t searched(const SlabJob& job, uint32_t word, int32_t table, int32_t low) {
    const Tables tables = length_tables(job);
    return tables.values[halve_bins(word, low, tables.guide[guide_at(word, table, tables) + 1], tables)];
}

// What the fields of a cell's requests depend on beside their words.
struct CellFields {
    uint32_t client, window;
    const int32_t* tables;
    Ties ties;
    double rows[TURN_FIELDS * TURN_FIELDS];  // of the copula
    int32_t context;
    uint32_t position;  // of ordinal 0
};

SG_WARP CellFields fields_of(const SlabJob& job, int32_t cell) {
    const CellLaw& law = job.cell_laws[cell];
    const int64_t profile = law.law / static_cast<int32_t>(job.rows);
    CellFields of = {law.client, law.window, job.table + law.law * job.fields, {0, 0}, {},
                     job.context_tokens ? job.context_tokens[profile] : 0, static_cast<uint32_t>(job.position_begin[cell])};
    const int64_t mixing = job.dependence == COPULA ? job.mixing_of[profile] : 0;
    if (mixing) {
        const int fields = static_cast<int>(job.scalar_fields);
        const double* matrix = job.mixing + mixing * fields * fields;
        of.ties = ties_of(matrix, fields, fields);
        SG_UNROLL for (int f = 1; f < TURN_FIELDS; ++f)
            SG_UNROLL for (int j = 0; j <= f; ++j) of.rows[f * TURN_FIELDS + j] = f < fields ? matrix[f * fields + j] : 0.0;
    }
    return of;
}

// Fields of a part of a warp's task, and an item for every request that has a time. What one request waits for, the
// others of the lane use: each step is one loop over them.
SG_WARP void scatter_part(const SlabJob& job, const CellFields& of, uint32_t begin, uint32_t first, const NormalRows& normals) {
    const int fields = static_cast<int>(job.scalar_fields), lane = lane_of();
    uint32_t time[AT_ONCE], row[AT_ONCE], words[AT_ONCE][TURN_FIELDS];
    int from[AT_ONCE];  // the lane that has asked for a row
    SG_UNROLL for (int r = 0; r < AT_ONCE; ++r) time[r] = job.time[begin + static_cast<uint32_t>(r * 32 + lane)];
    SG_UNROLL for (int r = 0; r < AT_ONCE; ++r) {
        const uint32_t bucket = time[r] == NO_TIME ? NO_TIME : time[r] >> job.bucket_shift;
        const Run run = run_of_lanes(bucket);
        from[r] = run.first;
        row[r] = 0;
        if (run.is_first && bucket != NO_TIME) row[r] = atomicAdd(job.bucket_next + bucket, static_cast<uint32_t>(run.length));
    }
    SG_UNROLL for (int r = 0; r < AT_ONCE; ++r) {
        const Words drawn = draw(job.round_keys, DATA, first + r * 32 + lane, of.client, of.window);
        const bool same = job.dependence == COMONOTONE;
        words[r][0] = drawn.w0;
        words[r][1] = same ? drawn.w0 : drawn.w1;
        words[r][2] = same ? drawn.w0 : drawn.w2;
    }
    if (of.ties.mixed) {
        SG_UNROLL for (int r = 0; r < AT_ONCE; ++r) mix_words<TURN_FIELDS>(of.ties, of.rows, TURN_FIELDS, words[r], normals);
    }
    const int32_t bits = static_cast<int32_t>(job.guide_bits);
    SG_UNROLL for (int f = 0; f < TURN_FIELDS; ++f) {  // words become values
        if (f >= fields) break;
        const int32_t table = of.tables[f];
        uint4 pair[AT_ONCE];
        SG_UNROLL for (int r = 0; r < AT_ONCE; ++r)
            pair[r] = job.pairs[table << bits | static_cast<int32_t>(words[r][f] >> (32 - bits))];
        uint32_t more = 0, value[AT_ONCE];
        SG_UNROLL for (int r = 0; r < AT_ONCE; ++r) {
            value[r] = pair[r].x < words[r][f] ? pair[r].z : pair[r].y;
            more |= pair[r].w >> 31 << r;
        }
        while (more) {
            const int k = __ffs(more) - 1;
            more &= more - 1;
            uint32_t word = 0, low = 0;
            SG_UNROLL for (int r = 0; r < AT_ONCE; ++r) {
                word = r == k ? words[r][f] : word;
                low = r == k ? pair[r].w & 0x7FFFFFFF : low;
            }
            const int32_t found = searched(job, word, table, static_cast<int32_t>(low));
            SG_UNROLL for (int r = 0; r < AT_ONCE; ++r) value[r] = r == k ? static_cast<uint32_t>(found) : value[r];
        }
        SG_UNROLL for (int r = 0; r < AT_ONCE; ++r) words[r][f] = value[r];
    }
    const uint32_t position = of.position + first + static_cast<uint32_t>(lane);
    const uint32_t inside = (uint32_t{1} << job.bucket_shift) - 1;
    SG_UNROLL for (int r = 0; r < AT_ONCE; ++r) {
        const uint32_t at = __shfl_sync(ALL_LANES, row[r], from[r]) + static_cast<uint32_t>(lane - from[r]);
        if (time[r] == NO_TIME) continue;
        const int32_t input = cut_input(static_cast<int32_t>(words[r][INPUT]), of.context);
        const int32_t output = cut_output(static_cast<int32_t>(words[r][OUTPUT]), input, of.context);
        const int32_t third = job.ratio_field ? reason_tokens(output, static_cast<int32_t>(words[r][2])) : 0;
        job.items_out[at] = as_words(position + r * 32, (time[r] & inside) << job.client_bits | of.client,
                                     fields > 2 ? three_fields(input, output, third) : two_fields(input, output));
    }
}

SG_WARP void scatter_task(const SlabJob& job, uint32_t index, const NormalRows& normals) {
    const Task task = job.task[index];
    const CellFields of = fields_of(job, task.cell);
    SG_ROLLED for (int part = 0; part < TASK; part += 32 * AT_ONCE)
        scatter_part(job, of, index * TASK + static_cast<uint32_t>(part), task.first + static_cast<uint32_t>(part), normals);
}

// A bucket of more than `job.bucket_least` and at most `job.bucket_most` items, in order, as columns. A block.
SG_WARP void arrange_bucket(const SlabJob& job, int64_t bucket) {
    const int64_t begin = job.bucket_begin[bucket];
    const int count = static_cast<int>(job.bucket_begin[bucket + 1] - begin), tid = static_cast<int>(threadIdx.x);
    if (count <= job.bucket_least || count > job.bucket_most) return;  // all threads of the block
    uint4* items = SG_SHARED(uint4);
    uint32_t* next = reinterpret_cast<uint32_t*>(items + job.bucket_most);  // [slots + 1]
    const int slots = static_cast<int>(job.bucket_slots);
    const uint32_t slot_shift = static_cast<uint32_t>(job.client_bits + job.slot_shift);
    uint32_t* sums = next + slots + 1;  // [warps]
    for (int s = tid; s <= slots; s += BUCKET_THREADS) next[s] = 0;
    __syncthreads();
    // next[s + 1]: how many items slot s has
    const uint4* from = job.items_out + begin;
    for (int i = tid; i < count; i += BUCKET_THREADS) atomicAdd(next + (from[i].y >> slot_shift) + 1, uint32_t{1});
    __syncthreads();
    // next[s + 1]: where slot s begins, and later where it ends
    const int each = slots / BUCKET_THREADS;
    uint32_t* own = next + tid * each + 1;
    uint32_t sum = 0;
    for (int s = 0; s < each; ++s) sum += own[s];
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
        const uint32_t here = own[s];
        own[s] = before;
        before += here;
    }
    __syncthreads();
    for (int i = tid; i < count; i += BUCKET_THREADS) {
        const uint4 item = from[i];
        items[atomicAdd(next + (item.y >> slot_shift) + 1, uint32_t{1})] = item;
    }
    __syncthreads();
    const uint32_t client_bits = static_cast<uint32_t>(job.client_bits), client_mask = (uint32_t{1} << client_bits) - 1;
    const int64_t base_us = (bucket << job.bucket_shift) + job.offset_us;
    const bool three = job.scalar_fields > 2;
    for (int i = tid; i < count; i += BUCKET_THREADS) {
        const uint4 item = items[i];
        const uint32_t slot = item.y >> slot_shift, first = next[slot], end = next[slot + 1];
        const uint64_t key = key_of_item(item);
        uint32_t rank = first;
        for (uint32_t k = first; k < end; ++k) rank += key_of_item(items[k]) < key ? 1 : 0;
        const int64_t row = begin + rank;
        job.arrival_us[row] = base_us + (item.y >> client_bits);
        job.client[row] = static_cast<int32_t>(item.y & client_mask);
        const uint64_t packed = static_cast<uint64_t>(item.w) << 32 | item.z;
        job.field[INPUT][row] = static_cast<int32_t>(three ? packed & FIELD_MASK : item.z);
        job.field[OUTPUT][row] = static_cast<int32_t>(three ? packed >> FIELD_BITS & FIELD_MASK : item.w);
        if (three) job.field[2][row] = static_cast<int32_t>(packed >> 2 * FIELD_BITS);
    }
}

}  // namespace SG_NAMESPACE
