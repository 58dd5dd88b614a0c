// One thread's share of every step of a slab, and the index arithmetic between them: plain C++, so that a host compiler
// runs and tests it (tests/test_cuda_host.py). slab.cu makes kernels of it; servegen_gpu/backends/cuda/slab.py calls
// them in this order:
//
//   expect -> begin             which cells have requests, and what each is like       (cells)
//   tile                        where the runs of requests begin                       (tiles of TILE requests)
//   gap -> unit -> tick -> sum  logarithms of gaps, the largest of a cell, whole ticks (requests)
//   end -> cross                sums of cells, and where renewals pass the window's end
//   word                        clock times, packed with positions to be sorted
//   record -> row -> item       lengths before the sort, columns after it, lists last
//   limit                       outputs of requests with lists, where clients have context limits
//
// Axes: grid (windows of the slab x clients), cells, runs (consecutive requests of one cell), requests of all runs,
// positions (requests that are kept, cell by cell), rows (sorted). Notation as in law/position.py.
#pragma once

#include "context.h"
#include "dependence.h"
#include "position.h"
#include "request.h"
#include "tables.h"
#include "variates.h"

namespace SG_NAMESPACE {

// A cell for a warp that draws its gaps.
struct alignas(16) CellLaw {
    uint32_t client, window;
    int32_t law;
    uint8_t family, rule;
    GapConstants of;
    double log_unit, ticks_per_unit;  // of a renewal
};

// Up to TASK consecutive requests of a cell.
struct alignas(16) Task {
    int32_t cell;
    uint32_t first;  // ordinal of its first request
    int32_t count;
    int32_t begin;  // the cell's first task
};

}  // namespace SG_NAMESPACE

// What every kernel is told; servegen_gpu/backends/cuda/job.py has the same fields in the same order, 8 bytes each.
struct SlabJob {
    // the workload
    uint64_t key0, key1;
    SG_NAMESPACE::RoundKeys round_keys;
    int64_t clients, rows, fields, scalar_fields, dependence, ratio_field, items, window_us;  // items: 1 if rows have some
    const uint32_t* client_id;  // [clients]
    const int32_t* profile;
    const double* rate_factor;
    const int32_t* group;       // or null: one group
    const uint8_t* count_rule;  // [profiles]
    const double *rate_rps, *shape, *occupancy, *log_mean_gap;  // [profiles, rows]
    const uint8_t* family;  // codes of draws
    const int32_t* table;  // [profiles, rows, fields]
    const double* mixing;           // [mixings, scalar fields, scalar fields]
    const int32_t* mixing_of;       // [profiles]
    const int32_t* context_tokens;  // [profiles], or null: no limits
    const uint32_t* thresholds;
    const int32_t *values, *guide;
    int64_t guide_bits;
    const uint32_t* clock_thresholds;
    const int32_t* clock_guide;
    int64_t clock_guide_bits;
    const uint64_t *clock_first, *clock_start_us, *clock_slope;
    // windows of the slab: row, absolute number; scale x length, clock table, start from the slab's begin
    int64_t windows;
    const int64_t* window_row;
    const uint32_t* window_number;
    const double* window_scale;  // this and the next two: [groups, windows]
    const int64_t *window_clock, *window_origin_us;
    int64_t span_us, offset_us;  // of the slab; what is added to a time for the column
    // cells
    uint8_t* active;           // [grid]
    const int64_t* grid_cell;  // where a cell is in the grid
    uint32_t *cell_client, *cell_number;
    int32_t* cell_window;  // group x windows + window
    int64_t* cell_law;     // profile x rows + row
    uint8_t* cell_rule;
    SG_NAMESPACE::CellLaw* cell_laws;  // the same once more, for a warp to read at once; or null
    double *cell_d, *cell_c, *cell_log_d, *cell_boost;
    double *log_unit, *ticks_per_unit;
    int64_t *rotation, *first_ticks, *room, *kept, *drawn, *last, *ticks_in_all;
    // runs
    int64_t runs, requests;
    const int64_t *run_begin, *run_cell, *run_first, *run_before;  // run_begin: [runs + 1]
    int32_t* tile_run;                                            // [tiles + 1]
    uint64_t* peak;
    int64_t* total;
    int64_t units_known;  // gaps become ticks at once
    int64_t* ticks;       // logarithms of gaps before they are ticks
    const int64_t* sums;  // of all ticks before and at a request, whatever its run
    int64_t* run_sums;    // of the cell's
    // tasks: consecutive requests of a cell
    int64_t cells, tasks;
    const int64_t *task_begin, *run_count;  // [cells + 1], [cells]
    SG_NAMESPACE::Task* task;
    int64_t *task_ticks, *task_before;
    const int64_t* task_sum;  // of all tasks before and at one, whatever their cells
    int64_t* more;            // requests that a renewal takes beyond those it has
    uint32_t* time;           // [tasks x TASK]
    // buckets of time
    uint32_t* bucket_next;        // how many requests each has, or got
    const int64_t* bucket_begin;  // [buckets + 1]
    int64_t bucket_shift, bucket_slots, slot_shift, bucket_least, bucket_most, client_bits;
    const uint4* pairs;  // [entries of the guide]: a threshold, the values below and above it, the bin
    uint4* items_out;
    // positions
    const int64_t* position_begin;  // [cells + 1], or null: positions are requests
    int64_t position_bits;
    int64_t* word;
    uint32_t* record;
    int64_t record_words;
    // rows
    const int64_t* order;  // or null: words hold positions
    int64_t* arrival_us;
    int32_t* client;
    int32_t* field[SG_NAMESPACE::SCALAR_FIELDS];
    int32_t* row_cell;
    uint32_t* row_ordinal;
    // items
    int64_t purpose, item_field;
    const int64_t* item_begin;  // [rows + 1]
    int32_t *item, *inputs;
};

namespace SG_NAMESPACE {

constexpr int64_t TILE = 256;
constexpr int64_t OPEN = INT64_MAX;     // kept: the renewal has not passed its window's end yet
constexpr int64_t OUTSIDE = INT64_MAX;  // word of a request that is dropped: it sorts last

static_assert(1 + SCALAR_FIELDS + 1 <= 8, "a record has 4 or 8 words: a cell, fields and the ordinal");
static_assert(SCALAR_FIELDS == 5, "a request has a draw of four words, and one more word");

SG_DEVICE Key key_of(const SlabJob& job) { return {static_cast<uint32_t>(job.key0), static_cast<uint32_t>(job.key1)}; }

SG_DEVICE Tables length_tables(const SlabJob& job) {
    return {job.thresholds, job.values, job.guide, static_cast<int32_t>(job.guide_bits)};
}

// Index arithmetic ------------------------------------------------------------------------------------------------

SG_DEVICE int64_t tiles_of(int64_t requests) { return (requests + TILE - 1) / TILE; }

// The run of a request among runs low .. high: the last that begins at or before it; runs of no requests are passed.
SG_DEVICE int64_t run_of(const int64_t* begin, int64_t low, int64_t high, int64_t request) {
    while (low < high) {
        const int64_t middle = low + ((high - low + 1) >> 1);
        if (begin[middle] <= request) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

struct Place {
    int64_t run, begin, cell, ordinal;
};

SG_DEVICE Place place_of_request(const SlabJob& job, int64_t request) {
    const int64_t tile = request / TILE;
    const int64_t run = run_of(job.run_begin, job.tile_run[tile], job.tile_run[tile + 1], request);
    const int64_t begin = job.run_begin[run];
    return {run, begin, job.run_cell ? job.run_cell[run] : run, (job.run_first ? job.run_first[run] : 0) + request - begin};
}

// Where the runs of tile `tile` begin; the entry after the last tile is the last run.
SG_DEVICE void tile_at(const SlabJob& job, int64_t tile) {
    const int64_t request = tile * TILE < job.requests ? tile * TILE : job.requests - 1;
    job.tile_run[tile] = static_cast<int32_t>(run_of(job.run_begin, 0, job.runs - 1, request));
}

// Cells -----------------------------------------------------------------------------------------------------------

struct Expected {
    int64_t profile, law, window, q32, count;  // window: of the client's group
    uint32_t rotation;
    uint8_t rule;
};

// What `cells_of` of plan.py and `begin` of cell_state.py know of a client in a window.
SG_DEVICE Expected expected_at(const SlabJob& job, int64_t cell) {
    const int64_t window = cell / job.clients, client = cell % job.clients;
    const int64_t profile = job.profile[client], law = profile * job.rows + job.window_row[window];
    const int64_t own = job.group ? job.group[client] * job.windows + window : window;
    const double mean = job.rate_rps[law] * job.rate_factor[client] * job.window_scale[own];
    const int64_t q32 = static_cast<int64_t>(mean * 4294967296.0);
    const uint8_t rule = job.count_rule[profile];
    const Words words = draw(key_of(job), COUNT, 0, job.client_id[client], job.window_number[window]);
    const int64_t rounding = rule == SERVEGEN ? 0xFFFFFFFF : static_cast<int64_t>(words.w0);
    return {profile, law, own, q32, rule == RENEWAL ? 0 : (q32 + rounding) >> 32, words.w1, rule};
}

SG_DEVICE bool is_active(const Expected& of) { return of.q32 > 0 && (of.rule == RENEWAL || of.count > 0); }

SG_DEVICE void expect_at(const SlabJob& job, int64_t cell) { job.active[cell] = is_active(expected_at(job, cell)); }

SG_DEVICE double log_gap(uint8_t by, Key key, uint32_t ordinal, uint32_t client, uint32_t window, GapConstants of) {
    LogGap gap = try_log_gap(by, draw(key, GAP, ordinal, client, window), of);
    for (int attempt = 1; !gap.accepted && attempt < MAX_ATTEMPTS; ++attempt)
        gap = try_log_gap(by, draw(key, GAP, ordinal, client, window, static_cast<uint32_t>(attempt)), of);
    return gap.log_gap;
}

SG_DEVICE void begin_at(const SlabJob& job, int64_t cell) {
    const int64_t at = job.grid_cell ? job.grid_cell[cell] : cell;
    const int64_t window = at / job.clients, client = at % job.clients;
    const Expected of = expected_at(job, at);
    job.cell_window[cell] = static_cast<int32_t>(of.window);
    const double expected = to_double(of.q32) * 2.3283064365386963e-10, shape = job.shape[of.law];
    const uint8_t family = job.family[of.law];
    const bool renewal = of.rule == RENEWAL && is_active(of);
    const double log_unit = job.log_mean_gap[of.law] + log(expected);
    int64_t first = WINDOW_TICKS, room = is_active(of) ? of.count : 0;
    if (renewal) {
        const FirstGap begin = equilibrium_constants(family, shape);
        const double gap = log_gap(first_draw(family), key_of(job), 0, job.client_id[client], job.window_number[window],
                                   begin.of);
        first = gap_ticks(gap * begin.power, log_unit, static_cast<double>(WINDOW_TICKS));
        // hardly ever less than the renewal needs
        const double likely = 1.02 * expected + 2.0 * sqrt(expected * dispersion(family, shape)), most = 4.0 * expected;
        room = first < WINDOW_TICKS ? static_cast<int64_t>((likely < most ? likely : most) + 4.0) : 0;
    }
    const GapConstants gap = gap_constants(family, shape);
    job.cell_client[cell] = job.client_id[client];
    job.cell_number[cell] = job.window_number[window];
    job.cell_law[cell] = of.law;
    job.cell_rule[cell] = of.rule;
    job.cell_d[cell] = gap.d;
    job.cell_c[cell] = gap.c;
    job.cell_log_d[cell] = gap.log_d;
    job.cell_boost[cell] = gap.boost;
    job.log_unit[cell] = log_unit;
    const int64_t bits = of.rule == RENEWAL ? RENEWAL_BITS : tick_bits(of.count > 1 ? of.count : 1);
    const double ticks_per_unit = from_bits((bits + 1023) << 52);
    job.ticks_per_unit[cell] = ticks_per_unit;
    if (job.cell_laws)
        job.cell_laws[cell] = {job.client_id[client], job.window_number[window], static_cast<int32_t>(of.law), family,
                               of.rule, gap, log_unit, ticks_per_unit};
    job.rotation[cell] = of.rotation;
    job.first_ticks[cell] = first;
    job.room[cell] = room;
    job.kept[cell] = renewal && room > 0 ? OPEN : room;
    job.ticks_in_all[cell] = of.rule == RENEWAL ? WINDOW_TICKS : 0;
}

// Gaps ------------------------------------------------------------------------------------------------------------

// Unsigned integers in the order of doubles; 0 is below all.
SG_DEVICE uint64_t ordered(double x) {
    const uint64_t bits = static_cast<uint64_t>(bits_of(x));
    return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}

SG_DEVICE double from_ordered(uint64_t key) {
    return from_bits(static_cast<int64_t>(key >> 63 ? key ^ uint64_t{1} << 63 : ~key));
}

SG_DEVICE double log_gap_at(const SlabJob& job, const Place& at) {
    const uint32_t ordinal = static_cast<uint32_t>(at.ordinal);
    const uint32_t client = job.cell_client[at.cell], window = job.cell_number[at.cell];
    return log_gap(job.family[job.cell_law[at.cell]], key_of(job), ordinal, client, window,
                   {job.cell_d[at.cell], job.cell_c[at.cell], job.cell_log_d[at.cell], job.cell_boost[at.cell]});
}

SG_DEVICE int64_t ticks_at(const SlabJob& job, int64_t cell, double log_gap) {
    return gap_ticks(log_gap, job.log_unit[cell], job.ticks_per_unit[cell]);
}

struct Gap {
    int64_t run;
    uint64_t peak;  // 0 where nobody asks for it
};

// Writes ticks where the unit is known, or else the logarithm, and returns what may be the run's largest.
SG_DEVICE Gap gap_at(const SlabJob& job, int64_t request) {
    const Place at = place_of_request(job, request);
    const bool renewal = job.cell_rule[at.cell] == RENEWAL;
    if (renewal && at.ordinal == 0) {
        job.ticks[request] = job.first_ticks[at.cell];
        return {at.run, 0};
    }
    const double log_gap = log_gap_at(job, at);
    if (renewal || job.units_known) {
        job.ticks[request] = ticks_at(job, at.cell, log_gap);
        return {at.run, 0};
    }
    job.ticks[request] = bits_of(log_gap);
    return {at.run, ordered(log_gap)};
}

// The unit of a counted cell: its largest gap. Only where every cell is one run.
SG_DEVICE void unit_at(const SlabJob& job, int64_t cell) {
    if (job.cell_rule[cell] != RENEWAL) job.log_unit[cell] = from_ordered(job.peak[cell]);
}

SG_DEVICE void tick_at(const SlabJob& job, int64_t request) {
    const int64_t cell = place_of_request(job, request).cell;
    if (job.cell_rule[cell] != RENEWAL) job.ticks[request] = ticks_at(job, cell, from_bits(job.ticks[request]));
}

// Sums ------------------------------------------------------------------------------------------------------------
// Sums go on over the bounds of runs and wrap around; differences undo both.

SG_DEVICE int64_t minus(int64_t a, int64_t b) {
    return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}

SG_DEVICE int64_t plus(int64_t a, int64_t b) {
    return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

// Ticks of the cell up to request `request` - 1 of the run that begins at `begin`.
SG_DEVICE int64_t sum_before(const SlabJob& job, int64_t run, int64_t begin, int64_t request) {
    const int64_t before = job.run_before ? job.run_before[run] : 0;
    if (request == begin) return before;
    return plus(before, minus(job.sums[request - 1], begin > 0 ? job.sums[begin - 1] : 0));
}

SG_DEVICE void sum_at(const SlabJob& job, int64_t request) {
    const Place at = place_of_request(job, request);
    job.run_sums[request] = sum_before(job, at.run, at.begin, request + 1);
}

// Ticks of a run alone.
SG_DEVICE void total_at(const SlabJob& job, int64_t run) {
    const int64_t begin = job.run_begin[run], end = job.run_begin[run + 1];
    job.total[run] = end > begin ? minus(job.sums[end - 1], begin > 0 ? job.sums[begin - 1] : 0) : 0;
}

// G of a counted cell; how far a renewal cell has come.
SG_DEVICE void end_at(const SlabJob& job, int64_t run) {
    const int64_t cell = job.run_cell ? job.run_cell[run] : run, begin = job.run_begin[run], end = job.run_begin[run + 1];
    const int64_t sum = sum_before(job, run, begin, end);
    if (job.cell_rule[cell] != RENEWAL) job.ticks_in_all[cell] = sum;
    job.last[cell] = sum;
    job.drawn[cell] = (job.run_first ? job.run_first[run] : 0) + end - begin;
}

// Whether a renewal passes its window's end at this request; sums that went on may pass it more than once.
SG_DEVICE bool crosses(const SlabJob& job, const Place& at, int64_t request) {
    if (job.cell_rule[at.cell] != RENEWAL) return false;
    const uint64_t end = static_cast<uint64_t>(WINDOW_TICKS);
    return static_cast<uint64_t>(sum_before(job, at.run, at.begin, request + 1)) >= end &&
           static_cast<uint64_t>(sum_before(job, at.run, at.begin, request)) < end;
}

// Times -----------------------------------------------------------------------------------------------------------

SG_DEVICE FromStart operational(const SlabJob& job, int64_t cell, int64_t sum) {
    switch (job.cell_rule[cell]) {
        case EXACT:
            return {on_circle(sum, job.ticks_in_all[cell], job.occupancy[job.cell_law[cell]], job.rotation[cell]), true};
        case RENEWAL:
            return {sum >> (RENEWAL_BITS - 32) & 0xFFFFFFFF, true};
        default:
            return from_start(sum, job.ticks_in_all[cell]);
    }
}

SG_DEVICE int64_t clock_at(const SlabJob& job, int64_t window, uint32_t x) {
    const int64_t table = job.window_clock[window];
    if (table == 0) return static_cast<int64_t>(clock_us(x, 0, 0, static_cast<uint64_t>(job.window_us)));
    const Tables segments = {job.clock_thresholds, nullptr, job.clock_guide, static_cast<int32_t>(job.clock_guide_bits)};
    const int64_t s = find_bin(x, table, segments);
    return static_cast<int64_t>(clock_us(x, job.clock_first[s], job.clock_start_us[s], job.clock_slope[s]));
}

SG_DEVICE void word_at(const SlabJob& job, int64_t request) {
    const Place at = place_of_request(job, request);
    int64_t position = request;
    if (job.position_begin) {
        if (at.ordinal >= job.kept[at.cell]) return;
        position = job.position_begin[at.cell] + at.ordinal;
    }
    const FromStart x = operational(job, at.cell, sum_before(job, at.run, at.begin, request + 1));
    const int64_t window = job.cell_window[at.cell];
    const int64_t us = job.window_origin_us[window] + clock_at(job, window, static_cast<uint32_t>(x.x));
    const bool inside = x.inside && us >= 0 && us < job.span_us;
    const int64_t word = job.position_bits ? us << job.position_bits | position : us;
    job.word[position] = inside ? word : OUTSIDE;
}

// Fields ----------------------------------------------------------------------------------------------------------

SG_DEVICE int64_t profile_of(const SlabJob& job, int64_t cell) { return job.cell_law[cell] / job.rows; }

// Cell and ordinal of a kept request, its scalar fields in lane order.
SG_DEVICE void record_at(const SlabJob& job, int64_t position) {
    if (job.word[position] == OUTSIDE) return;
    const Place at = place_of_request(job, position);
    const uint32_t ordinal = static_cast<uint32_t>(at.ordinal);
    const uint32_t client = job.cell_client[at.cell], window = job.cell_number[at.cell];
    const int fields = static_cast<int>(job.scalar_fields);
    const Words first = draw(key_of(job), DATA, ordinal, client, window);
    uint32_t words[SCALAR_FIELDS] = {first.w0, first.w1, first.w2, first.w3};
    if (job.dependence == COMONOTONE) {
        SG_UNROLL for (int f = 1; f < SCALAR_FIELDS; ++f) words[f] = first.w0;
    } else {
        if (fields > 4) words[4] = draw(key_of(job), DATA, ordinal, client, window, 1).w0;
        const int64_t mixing = job.dependence == COPULA ? job.mixing_of[profile_of(job, at.cell)] : 0;
        if (mixing) mix_words<SCALAR_FIELDS>(job.mixing + mixing * fields * fields, fields, words);
    }
    const Tables tables = length_tables(job);
    const int32_t* table = job.table + job.cell_law[at.cell] * job.fields;
    int32_t value[SCALAR_FIELDS] = {};
    SG_UNROLL for (int f = 0; f < SCALAR_FIELDS; ++f)
        if (f < fields) value[f] = tables.values[find_bin(words[f], table[f], tables)];
    if (job.context_tokens && !job.items) {  // with items, the input is not known yet
        const int32_t context = job.context_tokens[profile_of(job, at.cell)];
        value[INPUT] = cut_input(value[INPUT], context);
        value[OUTPUT] = cut_output(value[OUTPUT], value[INPUT], context);
    }
    SG_UNROLL for (int f = OUTPUT + 1; f < SCALAR_FIELDS; ++f)  // 0 is no share of the output
        if (f == job.ratio_field) value[f] = reason_tokens(value[OUTPUT], value[f]);
    uint32_t* record = job.record + position * job.record_words;
    record[0] = static_cast<uint32_t>(at.cell);
    SG_UNROLL for (int f = 0; f < SCALAR_FIELDS; ++f)
        if (f < fields) record[1 + f] = static_cast<uint32_t>(value[f]);
    if (job.row_ordinal) record[1 + fields] = ordinal;
}

SG_DEVICE void row_at(const SlabJob& job, int64_t row) {
    const int64_t word = job.word[row];
    const int64_t position = job.order ? job.order[row] : word & ((int64_t{1} << job.position_bits) - 1);
    const uint32_t* record = job.record + position * job.record_words;
    const int64_t cell = record[0];
    const int fields = static_cast<int>(job.scalar_fields);
    job.arrival_us[row] = (job.order ? word : word >> job.position_bits) + job.offset_us;
    job.client[row] = static_cast<int32_t>(job.cell_client[cell]);
    SG_UNROLL for (int f = 0; f < SCALAR_FIELDS; ++f)
        if (f < fields) job.field[f][row] = static_cast<int32_t>(record[1 + f]);
    if (job.row_ordinal) {
        job.row_cell[row] = static_cast<int32_t>(cell);
        job.row_ordinal[row] = record[1 + fields];
    }
}

// The items of a row, four to a draw, and their sum added to the row's input.
SG_DEVICE void item_at(const SlabJob& job, int64_t row) {
    const int64_t begin = job.item_begin[row], end = job.item_begin[row + 1], cell = job.row_cell[row];
    const Tables tables = length_tables(job);
    const int64_t table = job.table[job.cell_law[cell] * job.fields + job.item_field];
    int32_t sum = 0;
    for (int64_t i = begin; i < end; i += 4) {
        const uint32_t item = static_cast<uint32_t>((i - begin) >> 2);
        const Words words = draw(key_of(job), static_cast<Purpose>(job.purpose), job.row_ordinal[row],
                                 job.cell_client[cell], job.cell_number[cell], item);
        const uint32_t lanes[4] = {words.w0, words.w1, words.w2, words.w3};
        SG_UNROLL for (int lane = 0; lane < 4; ++lane) {
            if (i + lane < end) {
                const int32_t value = tables.values[find_bin(lanes[lane], table, tables)];
                job.item[i + lane] = value;
                sum += value;
            }
        }
    }
    job.inputs[row] += sum;
}

// The output of a row whose items are all in its input.
SG_DEVICE void limit_at(const SlabJob& job, int64_t row) {
    const int32_t context = job.context_tokens[profile_of(job, job.row_cell[row])];
    job.field[OUTPUT][row] = cut_output(job.field[OUTPUT][row], job.inputs[row], context);
}

}  // namespace SG_NAMESPACE
